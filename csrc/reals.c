/* The kernels of one element type and instruction set, as a table. */
#include "kernels.h"

#define ENTRY(name) .name = EXPORTED(name),
const minilm_reals EXPORTED(minilm_reals) = {EACH_KERNEL(ENTRY)};
