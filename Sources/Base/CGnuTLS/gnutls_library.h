// The functions of GnuTLS by pointer.
#ifndef STRATA_GNUTLS_LIBRARY_H
#define STRATA_GNUTLS_LIBRARY_H
#include "CGnuTLS.h"
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#define STRATA_GNUTLS_FUNCTIONS(F)                                                                                                          \
    F(strerror)                                                                                                                             \
    F(init)                                                                                                                                 \
    F(deinit)                                                                                                                               \
    F(priority_set_direct)                                                                                                                  \
    F(credentials_set)                                                                                                                      \
    F(server_name_set)                                                                                                                      \
    F(certificate_server_set_request)                                                                                                       \
    F(transport_set_int2)                                                                                                                   \
    F(transport_set_ptr2)                                                                                                                   \
    F(transport_set_pull_function)                                                                                                          \
    F(handshake)                                                                                                                            \
    F(handshake_set_timeout)                                                                                                                \
    F(record_get_direction)                                                                                                                 \
    F(record_check_pending)                                                                                                                 \
    F(record_recv)                                                                                                                          \
    F(record_send)                                                                                                                          \
    F(bye)                                                                                                                                  \
    F(error_is_fatal)                                                                                                                       \
    F(certificate_allocate_credentials)                                                                                                     \
    F(certificate_free_credentials)                                                                                                         \
    F(certificate_set_x509_trust_file)                                                                                                      \
    F(certificate_set_x509_crl_file)                                                                                                        \
    F(certificate_set_x509_key_file2)                                                                                                       \
    F(certificate_verify_peers3)                                                                                                            \
    F(certificate_verification_status_print)                                                                                                \
    F(certificate_type_get)                                                                                                                 \
    F(certificate_get_peers)                                                                                                                \
    F(psk_allocate_server_credentials)                                                                                                      \
    F(psk_free_server_credentials)                                                                                                          \
    F(psk_set_server_credentials_file)                                                                                                      \
    F(psk_allocate_client_credentials)                                                                                                      \
    F(psk_free_client_credentials)                                                                                                          \
    F(psk_set_client_credentials)                                                                                                           \
    F(anon_allocate_server_credentials)                                                                                                     \
    F(anon_free_server_credentials)                                                                                                         \
    F(anon_allocate_client_credentials)                                                                                                     \
    F(anon_free_client_credentials)                                                                                                         \
    F(cipher_init)                                                                                                                          \
    F(cipher_encrypt2)                                                                                                                      \
    F(cipher_decrypt)                                                                                                                       \
    F(cipher_set_iv)                                                                                                                        \
    F(cipher_deinit)                                                                                                                        \
    F(hash_fast)                                                                                                                            \
    F(pbkdf2)                                                                                                                               \
    F(rnd)                                                                                                                                  \
    F(x509_crt_init)                                                                                                                        \
    F(x509_crt_deinit)                                                                                                                      \
    F(x509_crt_import)                                                                                                                      \
    F(x509_crt_get_dn)

struct gnutls_functions {
#define DECLARE(name) __typeof__(gnutls_##name) *name;
    STRATA_GNUTLS_FUNCTIONS(DECLARE)
#undef DECLARE
};

extern struct gnutls_functions gnutls;
// Which directions the kernel encrypts: bit 0 receiving, bit 1 sending. NULL before GnuTLS 3.7.3, which cannot hand over to the kernel.
extern int (*gnutls_kernel_directions)(gnutls_session_t session);

struct strata_tls_credentials {
    enum strata_tls_kind kind;
    int is_server;
    union {
        gnutls_certificate_credentials_t x509;
        gnutls_psk_server_credentials_t psk_server;
        gnutls_psk_client_credentials_t psk_client;
        gnutls_anon_server_credentials_t anonymous_server;
        gnutls_anon_client_credentials_t anonymous_client;
    };
};

// The most that one record of TLS carries.
#define RECORD_SIZE 16384

// What is taken from the socket at a time.
#define AHEAD_SIZE 65536

struct strata_tls_session {
    gnutls_session_t session;
    int descriptor;
    // Received and not yet given to GnuTLS, which asks for each record in two small pieces.
    size_t ahead_start, ahead_end;
    unsigned char *ahead;
    // A record that GnuTLS has taken and could not send wholly: that many bytes of the caller's, which come again with its next call.
    size_t unsent;
    unsigned char record[RECORD_SIZE];
};
#endif
