// Atrous spatial pyramid pooling: convolutions of one x at several dilations beside each other, and the image's mean.
//
// y[.., b * O + o] = act(convolution of x with weight b, dilation b, plus bias b)     b in [0, branches): a 1x1, rates
// y[.., branches * O + o] = act(mean of x over the map * pool's 1x1 weight + bias)    the same for every pixel
//
// x  (N, H, W, C)     y  (N, H, W, (branches + 1) * O): what DeepLabV3 concatenates (Chen et al. 2017, section 3.3; the
// order of torchvision's ASPP), batch norms folded and ReLUs included. No branch exists on its own.
//
// It is one list of tasks, longest first, through the machinery of dilated_conv/dilated_conv.h, where all that is said:
// on CPU one parallel region, on CUDA one kernel. Upsampling a 1x1 map is a copy, so nothing is interpolated.
#pragma once

#include "dilated_conv/dilated_conv.h"
