// Linux calls that Swift cannot import: variadic functions, macros, ioctl structures and thread-local storage.
// One header per subject. Every function returns a negative errno instead of setting errno, so that no call can lose it.
#pragma once
#include "thread_context.h"
#include "tick_calls.h"
#include "uring.h"
#include "native_aio.h"
#include "file_calls.h"
#include "device_calls.h"
#include "socket_calls.h"
#include "event_calls.h"
#include "process_calls.h"
#include "trace_slots.h"
