"""Each likelihood against torch's or scipy's own."""

import torch
import torch.nn.functional as F
from scipy.stats import multivariate_normal, norm
from sklearn.metrics import log_loss

from bpc.likelihood import Classifier, GaussianLocation, LinearRegression, LogisticRegression
from bpc.models import ConvNet, ConvNetConfig


def test_classifier():
    net = ConvNet(ConvNetConfig(width=4, depth=1), (1, 8, 8), 3)
    params = net.init(2, torch.Generator().manual_seed(0))
    images, labels = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    got = Classifier(net)(params, images, labels)
    expected = torch.stack([-F.cross_entropy(logits, labels, reduction="none") for logits in net(params, images)])
    torch.testing.assert_close(got, expected)
    own = torch.stack([labels, labels.flip(0)])  # labels of each chain's own
    expected[1] = -F.cross_entropy(net(params, images)[1], own[1], reduction="none")
    torch.testing.assert_close(Classifier(net)(params, images, own), expected)


def test_gaussian_location():
    covariance = torch.tensor([[1.0, 0.3], [0.3, 0.6]], dtype=torch.float64)
    theta, points = torch.randn(3, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    got = GaussianLocation(covariance)(theta, points, torch.zeros(4))
    for k in range(3):
        expected = multivariate_normal(theta[k].numpy(), covariance.numpy()).logpdf(points.numpy())
        torch.testing.assert_close(got[k], torch.from_numpy(expected))
    each = points.expand(3, 4, 2)
    torch.testing.assert_close(GaussianLocation(covariance)(theta, each, torch.zeros(4)), got)


def test_linear_regression():
    theta, points = torch.randn(2, 3, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    got = LinearRegression(0.7)(theta, points, torch.zeros(4))
    mean = points[:, :3] @ theta.T
    expected = torch.from_numpy(norm(mean.numpy(), 0.7).logpdf(points[:, 3:].numpy())).T
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(LinearRegression(0.7)(theta, points.expand(2, 4, 4), torch.zeros(4)), got)


def test_logistic_regression():
    theta, points = torch.randn(2, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    got = LogisticRegression()(theta, points, labels)
    for k in range(2):
        expected = -log_loss(labels, torch.sigmoid(points @ theta[k]).numpy(), labels=[0, 1])
        assert abs(float(got[k].mean()) - expected) < 1e-9
