// Matrix product for few rows: out[rows][PANEL] = a[rows][depth] * b[depth][PANEL], PANEL = 2 vectors.
// ROWS accumulators of two vectors each, and the two of b, fill the registers: with 32 of them
// (AVX-512) 14 rows, with 16 six. Each output is summed over depth in order, whatever the number of
// rows beside it: the same bits for every batch and every number of threads.

template <int ROWS>
static INLINE void product_rows(const float *a, long a_row, const float *b, int depth, float *out,
                                long out_row) {
    vec sums[ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) sums[i][0] = sums[i][1] = vec{};
    for (int k = 0; k < depth; k++, b += PANEL) {
        const vec left = load(b), right = load(b + LANE);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
            const vec value = all(a[i * a_row + k]);
            sums[i][0] += value * left;
            sums[i][1] += value * right;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
        store(out + i * out_row, sums[i][0]);
        store(out + i * out_row + LANE, sums[i][1]);
    }
}

// rows <= ROWS, chosen at run time
template <int ROWS>
static void product_at_most(int rows, const float *a, long a_row, const float *b, int depth,
                            float *out, long out_row) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) product_rows<ROWS>(a, a_row, b, depth, out, out_row);
        else product_at_most<ROWS - 1>(rows, a, a_row, b, depth, out, out_row);
    }
}

// any number of rows, shared out evenly
static void product(int rows, const float *a, long a_row, const float *b, int depth, float *out,
                    long out_row) {
    int parts = (rows + MOST_ROWS - 1) / MOST_ROWS;
    for (int part = 0; part < parts; part++) {
        long from = (long)rows * part / parts, to = (long)rows * (part + 1) / parts;
        product_at_most<MOST_ROWS>((int)(to - from), a + from * a_row, a_row, b, depth,
                                   out + from * out_row, out_row);
    }
}
