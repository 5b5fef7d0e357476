// Winograd convolution. A block of tiles is transformed into data[point][tile][channel]; each point
// is a matrix product with its weights, into sums[point][tile][output channel of a chunk]; the output
// transform, bias and what follows are done while those are in the cache.

struct Tiles {
    const ea_tensor *in;
    int m, r, pad;      // tiles of m x m outputs, filter r x r
    int rows, columns;  // of tiles in an image
    int count() const { return in->n * rows * columns; }
};

// where the inputs of a tile start; positions outside of the image are zeros
template <int N>
static INLINE void tile_inputs(const Tiles &tiles, int tile, const float *zeros,
                               const float *(&at)[N][N]) {
    const ea_tensor &in = *tiles.in;
    int column = tile % tiles.columns, row = tile / tiles.columns % tiles.rows;
    const float *image = in.data + in.image * (tile / tiles.columns / tiles.rows);
    int top = row * tiles.m - tiles.pad, left = column * tiles.m - tiles.pad;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            int y = top + i, x = left + j;
            bool inside = y >= 0 && y < in.h && x >= 0 && x < in.w;
            at[i][j] = inside ? image + y * in.row + x * in.column : zeros;
        }
}

// B^T d B of tiles [first, last): to data[point * point_step + (tile - first) * channels + channel]
template <int M, int R>
static void transform_data(const Tiles &tiles, int first, int last, const float *zeros, float *data,
                           long point_step) {
    constexpr int n = M + R - 1;
    const int channels = tiles.in->c;
    for (int tile = first; tile < last; tile++, data += channels) {
        const float *at[n][n];
        tile_inputs<n>(tiles, tile, zeros, at);
        for (int c = 0; c < channels; c += LANE) {
            vec half[n][n];
            for (int j = 0; j < n; j++) {
                vec in[n], out[n];
#pragma GCC unroll 16
                for (int i = 0; i < n; i++) in[i] = load(at[i][j] + c);
                Transform<M, R>::data(in, out);
#pragma GCC unroll 16
                for (int i = 0; i < n; i++) half[i][j] = out[i];
            }
            for (int i = 0; i < n; i++) {
                vec out[n];
                Transform<M, R>::data(half[i], out);
#pragma GCC unroll 16
                for (int j = 0; j < n; j++) store(data + (i * n + j) * point_step + c, out[j]);
            }
        }
    }
}

// A^T s A plus bias, of one vector of output channels
template <int M, int R>
static INLINE void transform_output(const float *sums, long point_step, vec bias, vec (&out)[M][M]) {
    constexpr int n = M + R - 1;
    vec half[M][n];
    for (int j = 0; j < n; j++) {
        vec in[n], part[M];
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) in[i] = load(sums + (i * n + j) * point_step);
        Transform<M, R>::output(in, part);
#pragma GCC unroll 16
        for (int i = 0; i < M; i++) half[i][j] = part[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
        Transform<M, R>::output(half[i], out[i]);
#pragma GCC unroll 16
        for (int j = 0; j < M; j++) out[i][j] += bias;
    }
}

// the m x m outputs of a tile to where they belong, cut off at the edge
template <int M>
static INLINE void put_tile(const vec (&value)[M][M], float *image, const ea_tensor &out, int row,
                            int column) {
    for (int i = 0; i < M && row * M + i < out.h; i++)
        for (int j = 0; j < M && column * M + j < out.w; j++)
            store(image + (row * M + i) * out.row + (column * M + j) * out.column, value[i][j]);
}

template <int M>
static INLINE void put_pooled(const vec (&value)[M][M], float *image, const ea_tensor &out, int row,
                              int column) {
    constexpr int half = M / 2;
    for (int i = 0; i < half && row * half + i < out.h; i++)
        for (int j = 0; j < half && column * half + j < out.w; j++) {
            vec mean = (value[2 * i][2 * j] + value[2 * i][2 * j + 1] + value[2 * i + 1][2 * j] +
                        value[2 * i + 1][2 * j + 1]) * 0.25f;
            store(image + (row * half + i) * out.row + (column * half + j) * out.column, mean);
        }
}

template <int M, int R>
static void finish_tiles(const Tiles &tiles, int first, int last, const float *sums, long point_step,
                         int chunk, const float *bias, int after, const ea_tensor &out, int channel) {
    for (int tile = first; tile < last; tile++, sums += chunk) {
        int column = tile % tiles.columns, row = tile / tiles.columns % tiles.rows;
        float *image = out.data + out.image * (tile / tiles.columns / tiles.rows) + channel;
        for (int c = 0; c < chunk; c += LANE) {
            vec value[M][M];
            transform_output<M, R>(sums + c, point_step, load(bias + channel + c), value);
            if (after != EA_LINEAR)
                for (int i = 0; i < M; i++)
                    for (int j = 0; j < M; j++) value[i][j] = positive(value[i][j]);
            if (after == EA_RELU_POOL) put_pooled<M>(value, image + c, out, row, column);
            else put_tile<M>(value, image + c, out, row, column);
        }
    }
}

// all points of a block of tiles with one chunk of output channels
static void multiply(int points, int tiles, const float *data, long data_step, long data_row,
                     int depth, const float *weight, int chunk, float *sums, long sums_step) {
    for (int point = 0; point < points; point++)
        for (int c = 0; c < chunk; c += PANEL, weight += (long)depth * PANEL)
            product(tiles, data + point * data_step, data_row, weight, depth,
                    sums + point * sums_step + c, chunk);
}

template <int M, int R>
static void winograd_tiles(ea_context *context, const ea_tensor *in, int pad, const float *weight,
                           const float *bias, int chunk, int after, const ea_tensor *out) {
    constexpr int n = M + R - 1, points = n * n;
    const int pooled = after == EA_RELU_POOL ? 2 : 1;
    const Tiles tiles = {in, M, R, pad, (out->h * pooled + M - 1) / M, (out->w * pooled + M - 1) / M};
    const int count = tiles.count(), block = block_size(count, context_threads(context));
    const long data_step = (long)block * in->c + GAP, sums_step = (long)block * chunk + GAP;
    const size_t need = points * (data_step + sums_step);
    run(context, (count + block - 1) / block, need, [&](int item, float *scratch) {
        const int first = item * block, last = count < first + block ? count : first + block;
        float *data = scratch, *sums = scratch + points * data_step;
        transform_data<M, R>(tiles, first, last, context_zeros(context), data, data_step);
        for (int channel = 0; channel < out->c; channel += chunk) {
            multiply(points, last - first, data, data_step, in->c, in->c,
                     weight + (long)points * in->c * channel, chunk, sums, sums_step);
            finish_tiles<M, R>(tiles, first, last, sums, sums_step, chunk, bias, after, *out, channel);
        }
    });
}

// squares of a tile's outputs, summed over a chunk of channels: to part[h][w] of its image
template <int M, int R>
static void square_tiles(const Tiles &tiles, int first, int last, const float *sums, long point_step,
                         int chunk, const float *bias, int h, int w, float *part) {
    for (int tile = first; tile < last; tile++, sums += chunk) {
        vec total[M][M] = {};
        for (int c = 0; c < chunk; c += LANE) {
            vec value[M][M];
            transform_output<M, R>(sums + c, point_step, load(bias + c), value);
#pragma GCC unroll 16
            for (int i = 0; i < M; i++)
#pragma GCC unroll 16
                for (int j = 0; j < M; j++) total[i][j] += value[i][j] * value[i][j];
        }
        int column = tile % tiles.columns, row = tile / tiles.columns % tiles.rows;
        float *image = part + (long)h * w * (tile / tiles.columns / tiles.rows);
        for (int i = 0; i < M && row * M + i < h; i++)
            for (int j = 0; j < M && column * M + j < w; j++)
                image[(long)(row * M + i) * w + column * M + j] = sum(total[i][j]);
    }
}

struct Branch {
    int from, depth;
    const float *weight, *bias;
    float *map;
};

// Weights are large here and tiles few, so a chunk of weights is read once for a whole group of
// tiles. Each chunk has a map of its own, added up in order at the end.
template <int M, int R>
static void squares_tiles(ea_context *context, const ea_tensor *in, const Branch (&branches)[2],
                          int channels, int chunk, int h, int w) {
    constexpr int n = M + R - 1, points = n * n;
    const Tiles tiles = {in, M, R, 0, (h + M - 1) / M, (w + M - 1) / M};
    const int count = tiles.count(), group = count < GROUP ? count : GROUP;
    const int chunks = channels / chunk;
    const long data_step = (long)group * in->c + GAP, sums_step = (long)group * chunk + GAP;
    const long area = (long)in->n * h * w;
    float *data = context_shared(context, points * data_step + 2 * chunks * area);
    if (!data) return;
    float *parts = data + points * data_step;
    for (int first = 0; first < count; first += group) {
        const int last = count < first + group ? count : first + group;
        const int piece = block_size(last - first, 4 * context_threads(context));
        const int pieces = (last - first + piece - 1) / piece;
        run(context, pieces, 0, [&](int item, float *) {
            int from = first + item * piece, to = last < from + piece ? last : from + piece;
            transform_data<M, R>(tiles, from, to, context_zeros(context),
                                 data + (long)(from - first) * in->c, data_step);
        });
        run(context, 2 * chunks, points * sums_step, [&](int item, float *sums) {
            const Branch &branch = branches[item / chunks];
            const int channel = item % chunks * chunk;
            multiply(points, last - first, data + branch.from, data_step, in->c, branch.depth,
                     branch.weight + (long)points * branch.depth * channel, chunk, sums, sums_step);
            square_tiles<M, R>(tiles, first, last, sums, sums_step, chunk, branch.bias + channel, h, w,
                               parts + item * area);
        });
    }
    for (int b = 0; b < 2; b++)
        for (long i = 0; i < area; i++) {
            float total = 0;
            for (int k = 0; k < chunks; k++) total += parts[(b * chunks + k) * area + i];
            branches[b].map[i] = total / channels;
        }
}
