// Eight floats a vector, 16 registers; compiled with -mavx2 -mfma.
#if defined(__x86_64__)
#define KIND "avx2"
#define KERNELS kernels_avx2
#define LANE 8
#define MOST_ROWS 6
#define FIRST_VECTORS 2
#include "kernels.inl"
#endif
