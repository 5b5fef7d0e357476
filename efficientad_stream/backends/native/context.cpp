// Threads, scratch memory, and the choice of instructions.

#include "context.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/types.h>
#include <unistd.h>

namespace {

constexpr size_t PAGE = size_t(2) << 20;  // large pages, where the system gives them
constexpr int SPINS = 2000;               // looks before a thread goes to sleep: some 20 microseconds

struct Memory {
    float *data = nullptr;
    size_t size = 0;

    ~Memory() { std::free(data); }

    // contents are lost when it grows
    float *at_least(size_t floats) {
        if (floats > size) {
            std::free(data);
            size_t bytes = (floats * sizeof(float) + PAGE - 1) / PAGE * PAGE;
            data = static_cast<float *>(std::aligned_alloc(PAGE, bytes));
            size = data ? bytes / sizeof(float) : 0;
            if (data) std::memset(data, 0, bytes);
        }
        return data;
    }
};

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

struct ea_context {
    const Kernels *kernels;
    std::vector<float> zeros = std::vector<float>(MOST_CHANNELS);
    std::vector<Memory> scratch;  // of each thread
    Memory shared;
    std::atomic<bool> failed{false};

    // one job at a time; its items are taken by whoever is free
    void (*body)(int, float *, void *) = nullptr;
    void *argument = nullptr;
    int items = 0;
    size_t need = 0;
    std::atomic<int> next{0}, working{0};
    std::atomic<unsigned> job{0};
    std::atomic<bool> leaving{false};
    std::mutex mutex;
    std::condition_variable woken;
    std::vector<std::thread> threads;
    const pid_t owner = getpid();  // threads do not survive a fork: the child works alone

    ea_context(int count, const Kernels *chosen) : kernels(chosen), scratch(count) {
        try {
            for (int i = 1; i < count; i++) threads.emplace_back([this, i] { serve(i); });
        } catch (...) {
            leave();
            throw;
        }
    }
    ~ea_context() { leave(); }

    void leave() {
        {
            std::lock_guard<std::mutex> hold(mutex);
            leaving = true;
            job++;
        }
        woken.notify_all();
        for (auto &thread : threads)
            if (owner == getpid()) thread.join();
            else thread.detach();
        threads.clear();
    }

    void take_items(int id) {
        float *memory = need ? scratch[id].at_least(need) : nullptr;
        if (need && !memory) {
            failed = true;  // the results of this call are not to be used, whoever does the rest
            return;
        }
        for (int item; (item = next.fetch_add(1)) < items;) body(item, memory, argument);
    }

    unsigned wait_for_job(unsigned seen) {
        for (int i = 0; i < SPINS; i++) {
            if (job.load(std::memory_order_acquire) != seen) return job;
            relax();
        }
        std::unique_lock<std::mutex> hold(mutex);
        woken.wait(hold, [&] { return job != seen; });
        return job;
    }

    void serve(int id) {
        for (unsigned seen = 0;;) {
            seen = wait_for_job(seen);
            if (leaving) return;
            take_items(id);
            working.fetch_sub(1, std::memory_order_release);
        }
    }

    void run(int count, size_t floats, void (*what)(int, float *, void *), void *with) {
        body = what;
        argument = with;
        items = count;
        need = floats;
        next = 0;
        if (!threads.empty() && count > 1 && owner == getpid()) {
            working = static_cast<int>(threads.size());
            {
                std::lock_guard<std::mutex> hold(mutex);
                job++;
            }
            woken.notify_all();
        }
        take_items(0);
        // the others are at their last item, or only have to see that there is none left
        for (int i = 0; working.load(std::memory_order_acquire); i++)
            if (i < SPINS) relax();
            else std::this_thread::yield();
    }
};

void context_run(ea_context *context, int items, size_t scratch, void (*body)(int, float *, void *),
                 void *argument) {
    context->run(items, scratch, body, argument);
}

int context_threads(const ea_context *context) { return static_cast<int>(context->scratch.size()); }

const float *context_zeros(const ea_context *context) { return context->zeros.data(); }

float *context_shared(ea_context *context, size_t floats) {
    float *memory = context->shared.at_least(floats);
    if (!memory) context->failed = true;
    return memory;
}

static const Kernels *const LEVELS[] = {
    &kernels_portable,
#if defined(__x86_64__)
    &kernels_avx2,
    &kernels_avx512,
#endif
};
constexpr int LEVEL_COUNT = sizeof LEVELS / sizeof *LEVELS;

extern "C" {

const char *ea_api() { return EA_API; }

const char *ea_kind(int level) {
    return level >= 0 && level < LEVEL_COUNT ? LEVELS[level]->kind : nullptr;
}

int ea_best() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

int ea_lanes(int level) { return LEVELS[level]->lanes; }
int ea_panel(int level) { return LEVELS[level]->panel; }

ea_context *ea_open(int threads, int level) {
    if (threads < 1 || level < 0 || level > ea_best()) return nullptr;
    try {
        return new ea_context(threads, LEVELS[level]);
    } catch (const std::bad_alloc &) {
        return nullptr;
    } catch (const std::system_error &) {
        return nullptr;
    }
}

void ea_close(ea_context *context) { delete context; }
int ea_failed(ea_context *context) { return context->failed; }

void ea_bytes(ea_context *c, const unsigned char *rgb, const ea_tensor *out) {
    c->kernels->bytes(c, rgb, out);
}

void ea_first(ea_context *c, const ea_tensor *in, const float *weight, const float *bias,
              const ea_tensor *out) {
    c->kernels->first(c, in, weight, bias, out);
}

void ea_direct(ea_context *c, const ea_tensor *in, int r, int stride, int pad, const float *weight,
               const float *bias, int relu, const ea_tensor *out) {
    c->kernels->direct(c, in, r, stride, pad, weight, bias, relu, out);
}

void ea_winograd(ea_context *c, int m, int r, const ea_tensor *in, int pad, const float *weight,
                 const float *bias, int chunk, int after, const ea_tensor *out) {
    c->kernels->winograd(c, m, r, in, pad, weight, bias, chunk, after, out);
}

void ea_squares(ea_context *c, int m, int r, const ea_tensor *in, int in_a, int from_b,
                const float *weight_a, const float *bias_a, const float *weight_b,
                const float *bias_b, int channels, int chunk, int h, int w, float *map_a, float *map_b) {
    c->kernels->squares(c, m, r, in, in_a, from_b, weight_a, bias_a, weight_b, bias_b, channels, chunk,
                        h, w, map_a, map_b);
}

void ea_difference(ea_context *c, const ea_tensor *a, const ea_tensor *b, float *map) {
    c->kernels->difference(c, a, b, map);
}

void ea_resize(ea_context *c, const ea_tensor *in, const ea_tensor *out) {
    c->kernels->resize(c, in, out);
}

void ea_average(ea_context *c, const ea_tensor *in, const ea_tensor *out) {
    c->kernels->average(c, in, out);
}
}
