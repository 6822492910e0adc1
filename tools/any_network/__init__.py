"""Whether gradient checkpointing works for any network: timm's, torchvision's and some of Hugging Face's."""
