// Threads and scratch memory, and the kernels of one instruction set. Included by sources that are
// compiled with different flags: no inline function of the standard library may be used here, since
// the linker keeps one copy of each, perhaps the one that this processor cannot run.
#pragma once

#include <stddef.h>

#pragma GCC visibility push(default)  // the rest of the library is its own business
extern "C" {
#include "api.h"
}
#pragma GCC visibility pop

// body(item, scratch, argument) for each item, on the threads of context; scratch holds that many
// floats, is aligned, and belongs to the thread
void context_run(ea_context *context, int items, size_t scratch,
                 void (*body)(int item, float *scratch, void *argument), void *argument);
int context_threads(const ea_context *context);
const float *context_zeros(const ea_context *context);       // MOST_CHANNELS of them
float *context_shared(ea_context *context, size_t floats);   // until the next call; NULL: no memory

constexpr int MOST_CHANNELS = 4096;

template <class Body>
static void run(ea_context *context, int items, size_t scratch, Body body) {
    context_run(
        context, items, scratch,
        [](int item, float *memory, void *argument) { (*(Body *)argument)(item, memory); }, &body);
}

struct Kernels {
    const char *kind;
    int lanes, panel;
    void (*bytes)(ea_context *, const unsigned char *, const ea_tensor *);
    void (*first)(ea_context *, const ea_tensor *, const float *, const float *, const ea_tensor *);
    void (*direct)(ea_context *, const ea_tensor *, int, int, int, const float *, const float *, int,
                   const ea_tensor *);
    void (*winograd)(ea_context *, int, int, const ea_tensor *, int, const float *, const float *, int,
                     int, const ea_tensor *);
    void (*squares)(ea_context *, int, int, const ea_tensor *, int, int, const float *, const float *,
                    const float *, const float *, int, int, int, int, float *, float *);
    void (*difference)(ea_context *, const ea_tensor *, const ea_tensor *, float *);
    void (*resize)(ea_context *, const ea_tensor *, const ea_tensor *);
    void (*average)(ea_context *, const ea_tensor *, const ea_tensor *);
};

extern const Kernels kernels_portable;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512;
#endif
