// One vector of LANE floats, in GCC's and Clang's vector extension: the compiler chooses the
// instructions from the flags that this file is compiled with (setup.py).

#define INLINE inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(LANE * sizeof(float)), aligned(4), may_alias));

static INLINE vec load(const float *from) { return *(const vec *)from; }
static INLINE void store(float *to, vec value) { *(vec *)to = value; }
static INLINE vec all(float value) { return vec{} + value; }

static INLINE vec positive(vec value) {
    // a NaN must stay one: a comparison with it is false
    return value < vec{} ? vec{} : value;
}

static INLINE float sum(vec value) {
    float total = 0;
    for (int i = 0; i < LANE; i++) total += value[i];
    return total;
}
