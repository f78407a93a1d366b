"""FP16 and INT8 written into the ONNX itself: explicit casts, and QuantizeLinear/DequantizeLinear pairs."""
