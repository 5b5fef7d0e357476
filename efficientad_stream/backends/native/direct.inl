// Convolutions by their definition (few channels, strides, 1 x 1), and what moves pixels.

// The first layer: 48 numbers for each output, so a position's window is read straight from the
// image; four positions (a 2 x 2 that is averaged afterwards) times VECTORS vectors of channels stay in registers.
static INLINE void first_position(const float *at, long row, const float *weight, const float *bias,
                                  float *out) {
    vec sums[4][VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++)
        sums[0][v] = sums[1][v] = sums[2][v] = sums[3][v] = load(bias + v * LANE);
    for (int i = 0; i < 4; i++) {
        const float *line = at + i * row;
        for (int k = 0; k < 12; k++, weight += VECTORS * LANE) {
            const vec a = all(line[k]), b = all(line[k + 3]), c = all(line[row + k]),
                      d = all(line[row + k + 3]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) {
                const vec w = load(weight + v * LANE);
                sums[0][v] += a * w;
                sums[1][v] += b * w;
                sums[2][v] += c * w;
                sums[3][v] += d * w;
            }
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++)
        store(out + v * LANE, (positive(sums[0][v]) + positive(sums[1][v]) + positive(sums[2][v]) +
                               positive(sums[3][v])) * 0.25f);
}

static void first_layer(ea_context *context, const ea_tensor *in, const float *weight,
                        const float *bias, const ea_tensor *out) {
    constexpr int lanes = VECTORS * LANE;
    run(context, out->n * out->h, 0, [&](int item, float *) {
        const int image = item / out->h, y = item % out->h;
        const float *line = in->data + image * in->image + 2 * y * in->row;
        float *to = out->data + image * out->image + y * out->row;
        for (int c = 0; c < out->c; c += lanes)
            for (int x = 0; x < out->w; x++)
                first_position(line + 2 * x * in->column, in->row, weight + 48L * c, bias + c,
                               to + x * out->column + c);
    });
}

constexpr int POSITIONS = 6;   // outputs of a row that are computed at once
constexpr int MOST_TAPS = 64;  // r * r

// `positions` outputs of PANEL channels: at[position][tap] is where the inputs of a tap lie
static INLINE void direct_outputs(const float *const (*at)[MOST_TAPS], int taps, int channels,
                                  const float *weight, vec (&sums)[POSITIONS][2]) {
    for (int tap = 0; tap < taps; tap++)
        for (int k = 0; k < channels; k++, weight += PANEL) {
            const vec left = load(weight), right = load(weight + LANE);
#pragma GCC unroll 8
            for (int p = 0; p < POSITIONS; p++) {
                const vec value = all(at[p][tap][k]);
                sums[p][0] += value * left;
                sums[p][1] += value * right;
            }
        }
}

static void direct(ea_context *context, const ea_tensor *in, int r, int stride, int pad,
                   const float *weight, const float *bias, int relu, const ea_tensor *out) {
    const int strips = (out->w + POSITIONS - 1) / POSITIONS, taps = r * r;
    run(context, out->n * out->h, 0, [&](int item, float *) {
        const int image = item / out->h, y = item % out->h;
        for (int strip = 0; strip < strips; strip++) {
            const float *at[POSITIONS][MOST_TAPS];
            for (int p = 0; p < POSITIONS; p++)
                for (int tap = 0; tap < taps; tap++) {
                    int iy = y * stride + tap / r - pad, ix = (strip * POSITIONS + p) * stride + tap % r - pad;
                    bool inside = iy >= 0 && iy < in->h && ix >= 0 && ix < in->w;
                    at[p][tap] = inside ? in->data + image * in->image + iy * in->row + ix * in->column
                                        : context_zeros(context);
                }
            for (int c = 0; c < out->c; c += PANEL) {
                vec sums[POSITIONS][2];
                for (int p = 0; p < POSITIONS; p++) {
                    sums[p][0] = load(bias + c);
                    sums[p][1] = load(bias + c + LANE);
                }
                direct_outputs(at, taps, in->c, weight + (long)taps * in->c * c, sums);
                float *to = out->data + image * out->image + y * out->row + c;
                for (int p = 0; p < POSITIONS && strip * POSITIONS + p < out->w; p++)
                    for (int v = 0; v < 2; v++)
                        store(to + (strip * POSITIONS + p) * out->column + v * LANE,
                              relu ? positive(sums[p][v]) : sums[p][v]);
            }
        }
    });
}

static void bytes(ea_context *context, const unsigned char *rgb, const ea_tensor *out) {
    run(context, out->n * out->h, 0, [&](int item, float *) {
        const int image = item / out->h, y = item % out->h;
        const unsigned char *from = rgb + (long)item * out->w * 3;
        float *to = out->data + image * out->image + y * out->row;
        for (int i = 0; i < 3 * out->w; i++) to[i] = from[i] / 255.0f;
    });
}

static void difference(ea_context *context, const ea_tensor *a, const ea_tensor *b, float *map) {
    run(context, a->n * a->h, 0, [&](int item, float *) {
        const int image = item / a->h, y = item % a->h;
        for (int x = 0; x < a->w; x++) {
            const float *one = a->data + image * a->image + y * a->row + x * a->column;
            const float *other = b->data + image * b->image + y * b->row + x * b->column;
            vec total = {};
            for (int c = 0; c < a->c; c += LANE) {
                const vec d = load(one + c) - load(other + c);
                total += d * d;
            }
            map[(long)item * a->w + x] = sum(total) / a->c;
        }
    });
}

// where an output position lies between two input positions
struct Between {
    int low, high;
    float share;  // of high
    Between(int at, int size, int from) {
        float position = (at + 0.5f) * ((float)from / size) - 0.5f;
        if (position < 0) position = 0;
        low = (int)position;
        high = low + 1 < from ? low + 1 : low;
        share = position - low;
    }
};

static void resize(ea_context *context, const ea_tensor *in, const ea_tensor *out) {
    run(context, out->n * out->h, 0, [&](int item, float *) {
        const int image = item / out->h, y = item % out->h;
        const Between v(y, out->h, in->h);
        const float *upper = in->data + image * in->image + v.low * in->row;
        const float *lower = in->data + image * in->image + v.high * in->row;
        for (int x = 0; x < out->w; x++) {
            const Between u(x, out->w, in->w);
            const long low = u.low * in->column, high = u.high * in->column;
            float *to = out->data + image * out->image + y * out->row + x * out->column;
            for (int c = 0; c < out->c; c += LANE) {
                const vec above = load(upper + low + c) * (1 - u.share) + load(upper + high + c) * u.share;
                const vec below = load(lower + low + c) * (1 - u.share) + load(lower + high + c) * u.share;
                store(to + c, above * (1 - v.share) + below * v.share);
            }
        }
    });
}

static void average(ea_context *context, const ea_tensor *in, const ea_tensor *out) {
    run(context, out->n * out->h, 0, [&](int item, float *) {
        const int image = item / out->h, y = item % out->h;
        const int top = y * in->h / out->h, bottom = ((y + 1) * in->h + out->h - 1) / out->h;
        for (int x = 0; x < out->w; x++) {
            const int left = x * in->w / out->w, right = ((x + 1) * in->w + out->w - 1) / out->w;
            float *to = out->data + image * out->image + y * out->row + x * out->column;
            for (int c = 0; c < out->c; c += LANE) {
                vec total = {};
                for (int i = top; i < bottom; i++)
                    for (int j = left; j < right; j++)
                        total += load(in->data + image * in->image + i * in->row + j * in->column + c);
                store(to + c, total / (float)((bottom - top) * (right - left)));
            }
        }
    });
}
