#include "gnutls_library.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

struct gnutls_functions gnutls;
int (*gnutls_kernel_directions)(gnutls_session_t session);
static char failure[256];
static int is_loaded;

static void load(void) {
    void *library = dlopen("libgnutls.so.30", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(failure, sizeof failure, "%s", dlerror());
        return;
    }
#define LOAD(name)                                                                            \
    gnutls.name = (__typeof__(gnutls.name))dlsym(library, "gnutls_" #name);                   \
    if (!gnutls.name) {                                                                       \
        snprintf(failure, sizeof failure, "libgnutls has no function gnutls_" #name);         \
        return;                                                                               \
    }
    STRATA_GNUTLS_FUNCTIONS(LOAD)
#undef LOAD
    gnutls_kernel_directions = (__typeof__(gnutls_kernel_directions))dlsym(library, "gnutls_transport_is_ktls_enabled");
    is_loaded = 1;
}

const char *strata_tls_unavailable(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return is_loaded ? NULL : failure;
}

const char *strata_tls_error_text(int error) { return is_loaded ? gnutls.strerror(error) : failure; }
