from minilm.kernels.reference import *
