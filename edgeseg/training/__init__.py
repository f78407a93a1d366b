"""`edgeseg finetune`: training from scratch, fine-tuning, and quantisation-aware training on labelled images."""
