#include "thread_context.h"

static _Thread_local void *current_context;

void *strata_thread_context(void) { return current_context; }
void strata_set_thread_context(void *context) { current_context = context; }
