// All kernels for one instruction set: included once each by portable.cpp, avx2.cpp and avx512.cpp,
// which say LANE (floats in a vector), MOST_ROWS (of a matrix product), FIRST_VECTORS (of output
// channels of the first layer), KERNELS (their name) and KIND (for people).

#include "context.h"

namespace {  // the same names with other instructions must stay apart

constexpr int PANEL = 2 * LANE;     // output channels of a matrix product
constexpr int VECTORS = FIRST_VECTORS;  // of output channels of the first layer
constexpr int GAP = 16;             // keeps points from falling into the same set of the cache
constexpr int BLOCK = 28;           // tiles that are transformed at once
constexpr int GROUP = 256;          // tiles that share a reading of large weights

int block_size(int tiles, int threads) {
    int blocks = (tiles + BLOCK - 1) / BLOCK;
    blocks = (blocks + threads - 1) / threads * threads;
    return (tiles + blocks - 1) / blocks;
}

#include "vec.inl"
#include "transforms.inl"
#include "gemm.inl"
#include "winograd.inl"
#include "direct.inl"

void winograd(ea_context *context, int m, int r, const ea_tensor *in, int pad, const float *weight,
              const float *bias, int chunk, int after, const ea_tensor *out) {
#define TILE(M, R) \
    if (m == M && r == R) return winograd_tiles<M, R>(context, in, pad, weight, bias, chunk, after, out)
    TILE(4, 3);
    TILE(6, 3);
    TILE(4, 4);
    TILE(6, 4);
#undef TILE
}

void squares(ea_context *context, int m, int r, const ea_tensor *in, int in_a, int from_b,
             const float *weight_a, const float *bias_a, const float *weight_b, const float *bias_b,
             int channels, int chunk, int h, int w, float *map_a, float *map_b) {
    const Branch branches[2] = {{0, in_a, weight_a, bias_a, map_a},
                                {from_b, in->c - from_b, weight_b, bias_b, map_b}};
#define TILE(M, R) \
    if (m == M && r == R) return squares_tiles<M, R>(context, in, branches, channels, chunk, h, w)
    TILE(4, 4);
    TILE(6, 4);
    TILE(7, 4);
#undef TILE
}

}  // namespace

extern const Kernels KERNELS = {KIND, VECTORS *LANE, PANEL, bytes, first_layer, direct,
                                winograd, squares, difference, resize, average};
