// Which trace points may be on: one byte for each slot, read without a lock by every trace point of the program.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { STRATA_TRACE_SLOTS = 4096 };
typedef uint16_t strata_trace_slot;

// Hidden, so that position-independent code reaches it without a detour through the table of global offsets; out of Swift's sight, where an
// array of this size would be a tuple.
extern unsigned char strata_trace_slot_bytes[STRATA_TRACE_SLOTS]
    __attribute__((visibility("hidden"), availability(swift, unavailable, message = "strata_trace_slot_is_on reads it")));

// Inline, so that a trace point that is off costs one load and one branch.
static inline bool strata_trace_slot_is_on(strata_trace_slot slot) {
    return __atomic_load_n(&strata_trace_slot_bytes[slot % STRATA_TRACE_SLOTS], __ATOMIC_RELAXED) != 0;
}

void strata_trace_set_slot(strata_trace_slot slot, bool on);
