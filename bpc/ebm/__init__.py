"""The latent energy-based model: semi-supervised learning, class-conditional synthesis, and which samples are worth having."""
