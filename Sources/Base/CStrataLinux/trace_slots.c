#include "trace_slots.h"

unsigned char strata_trace_slot_bytes[STRATA_TRACE_SLOTS];

void strata_trace_set_slot(strata_trace_slot slot, bool on) {
    __atomic_store_n(&strata_trace_slot_bytes[slot % STRATA_TRACE_SLOTS], on, __ATOMIC_RELAXED);
}
