// The I/O context that the current thread runs: one thread-local pointer, which Swift has no way to declare.
#pragma once

void *strata_thread_context(void);
void strata_set_thread_context(void *context);
