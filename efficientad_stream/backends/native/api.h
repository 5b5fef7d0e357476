// What Python calls (read by cffi as well: declarations and plain constants only).
// All numbers are single precision. A failed allocation is reported by ea_failed.

typedef struct ea_context ea_context;

// n images of h x w positions of c channels, channels innermost and without gaps; steps in floats.
// A slice of the channels, or the inside of a frame, is a tensor of its own with the same steps.
typedef struct {
    float *data;
    int n, h, w, c;
    long image, row, column;
} ea_tensor;

const char *ea_api(void);         // SHA-256 of this file when the library was built
const char *ea_kind(int level);   // "portable", "avx2", "avx512"; NULL: no such level
int ea_best(void);                // the highest level that this processor can run

ea_context *ea_open(int threads, int level);   // NULL: no memory, or no threads
void ea_close(ea_context *context);
int ea_failed(ea_context *context);            // 1 once memory has run out: no result counts any more

// RGB bytes, n x h x w x 3 without gaps, to [0, 1].
void ea_bytes(ea_context *context, const unsigned char *rgb, const ea_tensor *out);

// 4 x 4 convolution of 3 channels, ReLU, mean of 2 x 2. weight: [c / lanes][48][lanes], see ea_lanes.
void ea_first(ea_context *context, const ea_tensor *in, const float *weight, const float *bias,
              const ea_tensor *out);
int ea_lanes(int level);          // output channels that ea_first computes at once

// r x r convolution by its definition, zero padding; weight: [c / panel][r * r * in][panel].
void ea_direct(ea_context *context, const ea_tensor *in, int r, int stride, int pad,
               const float *weight, const float *bias, int relu, const ea_tensor *out);
int ea_panel(int level);          // two vectors

// r x r convolution of stride 1 in tiles of m x m, zero padding; after: see EA_*.
// weight: [c / chunk][n * n][chunk / panel][in][panel].
enum { EA_LINEAR = 0, EA_RELU = 1, EA_RELU_POOL = 2 };
void ea_winograd(ea_context *context, int m, int r, const ea_tensor *in, int pad,
                 const float *weight, const float *bias, int chunk, int after,
                 const ea_tensor *out);

// Mean over channels of the squares of such a convolution without padding: two of them at once, of
// channels [0, in_a) and [from_b, in.c) of in. map_a, map_b: n x h x w without gaps.
void ea_squares(ea_context *context, int m, int r, const ea_tensor *in, int in_a, int from_b,
                const float *weight_a, const float *bias_a, const float *weight_b,
                const float *bias_b, int channels, int chunk, int h, int w, float *map_a, float *map_b);

// Mean over channels of the squares of (a - b), n x h x w without gaps.
void ea_difference(ea_context *context, const ea_tensor *a, const ea_tensor *b, float *map);

// Bilinear, corners not aligned (as PyTorch's interpolate).
void ea_resize(ea_context *context, const ea_tensor *in, const ea_tensor *out);

// Adaptive average (as PyTorch's adaptive_avg_pool2d).
void ea_average(ea_context *context, const ea_tensor *in, const ea_tensor *out);
