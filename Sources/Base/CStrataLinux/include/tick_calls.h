// The processor's own counter: a few cycles to read, where the kernel's clock costs some tens of nanoseconds.
#pragma once
#include <stdint.h>
#include "event_calls.h"

// A count that grows at a constant rate on every processor of the machine. What a tick is worth is measured by the caller.
static inline uint64_t strata_ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return (uint64_t)strata_monotonic_now();
#endif
}
