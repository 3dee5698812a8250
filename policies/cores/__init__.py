"""Recurrent cores: what stands between the encoder and the heads. `base.Core` is their contract."""
