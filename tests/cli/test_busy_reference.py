"""A reference that another process samples: the coresets' posteriors come first, then it is waited for."""

import threading
import time

import filelock

from bpc_cli.main import main

SHORT = ("--chains", "2", "--leapfrog-steps", "2", "--warmup", "4", "--samples", "4", "--test-images", "20")
REFERENCE = ("--reference-warmup", "4", "--reference-samples", "4")
DIGITS = ("--dataset", "digits", "--width", "2", "--depth", "1", "--device", "cpu")


def test_coresets_are_sampled_while_another_process_holds_the_reference(tmp_path, capsys):
    reference, coreset, out = tmp_path / "reference", tmp_path / "coreset", tmp_path / "out"
    assert main(["select", "--method", "random", "--ipc", "1", "--out", str(coreset), *DIGITS]) == 0
    reference.mkdir()
    lock = filelock.FileLock(str(reference / ".lock"), thread_local=False)
    lock.acquire(timeout=0)
    sampled_before_release = []

    def release() -> None:
        rows = out / "rows.csv"
        for _ in range(600):
            if rows.exists() and "mixed" in rows.read_text():
                sampled_before_release.append(True)
                break
            time.sleep(0.1)
        lock.release()

    helper = threading.Thread(target=release)
    helper.start()
    command = ["evaluate", "--coreset", str(coreset), "--protocol", "exact-scaled", "--reference", str(reference)]
    code = main([*command, "--out", str(out), *SHORT, *REFERENCE, *DIGITS])
    helper.join()
    assert code == 0
    assert sampled_before_release
    assert "Another process samples" in capsys.readouterr().err
    assert "tv," in (out / "rows.csv").read_text()
