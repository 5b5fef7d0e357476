// Four floats a vector: SSE2, NEON, or whatever the compiler has.
#define KIND "portable"
#define KERNELS kernels_portable
#define LANE 4
#define MOST_ROWS 4
#define FIRST_VECTORS 2
#include "kernels.inl"
