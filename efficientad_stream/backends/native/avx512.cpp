// Sixteen floats a vector, 32 registers; compiled with -mavx512f.
#if defined(__x86_64__)
#define KIND "avx512"
#define KERNELS kernels_avx512
#define LANE 16
#define MOST_ROWS 14
#define FIRST_VECTORS 4
#include "kernels.inl"
#endif
