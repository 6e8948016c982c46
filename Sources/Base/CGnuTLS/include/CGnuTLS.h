// What Strata needs of GnuTLS. The library is loaded when the first credentials are made, so that a process without TLS does not pay for it.
// A session is used by one thread at a time. Negative results are GnuTLS's error numbers unless a function says otherwise.
#ifndef STRATA_GNUTLS_H
#define STRATA_GNUTLS_H
#include "disk_cipher.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef struct strata_tls_credentials strata_tls_credentials;
typedef struct strata_tls_session strata_tls_session;

// NULL when the library is there, else why not. Any thread.
const char *strata_tls_unavailable(void);
const char *strata_tls_error_text(int error);

// AES-256 in CBC mode, in place. The key has 32 bytes, the vector 16, `count` is a multiple of 16.
int strata_aes_decrypt(const void *key, const void *vector, void *bytes, size_t count);

enum strata_tls_kind { STRATA_TLS_X509, STRATA_TLS_PSK, STRATA_TLS_ANONYMOUS };

// New credentials, to be filled below; *result is only set on success.
int strata_tls_credentials_new(strata_tls_credentials **result, enum strata_tls_kind kind, int is_server);
void strata_tls_credentials_free(strata_tls_credentials *credentials);
// Files in PEM. The number of certificates that were read, or an error.
int strata_tls_trust(strata_tls_credentials *credentials, const char *path);
int strata_tls_revocations(strata_tls_credentials *credentials, const char *path);
// `password` may be NULL.
int strata_tls_key_pair(strata_tls_credentials *credentials, const char *certificate, const char *key, const char *password);
int strata_tls_psk_file(strata_tls_credentials *credentials, const char *path);
// `key` in hexadecimal.
int strata_tls_psk_key(strata_tls_credentials *credentials, const char *user, const char *key);

// A session over a connected, non-blocking socket. The credentials outlive it. `host_name` may be NULL.
// `wants_certificate`: a server insists on a certificate of its client.
int strata_tls_session_new(strata_tls_session **result, strata_tls_credentials *credentials, int is_server, int descriptor, const char *priority,
                           const char *host_name, int wants_certificate);
void strata_tls_session_free(strata_tls_session *session);
// 0: done. 1: call again when the socket is readable; 2: when it is writable.
int strata_tls_handshake(strata_tls_session *session);
// Checks the peer's certificate: its chain and dates, and its name if `host_name` is given. 0, or an error with a sentence in `text`.
int strata_tls_verify(strata_tls_session *session, const char *host_name, char *text, size_t size);
// The distinguished name of the peer's certificate, as RFC 4514 writes it.
int strata_tls_peer_name(strata_tls_session *session, char *text, size_t size);
// Which directions the kernel encrypts after the handshake: bit 0 receiving, bit 1 sending. Sending and receiving are the same calls then.
int strata_tls_kernel_directions(strata_tls_session *session);
// Bytes that were taken from the socket, deciphered or not, and not received yet: the socket does not become readable for them.
size_t strata_tls_pending(strata_tls_session *session);
// Like recv and sendmsg on a non-blocking socket: bytes, 0 at the end of the stream, or a negative errno.
ssize_t strata_tls_receive(strata_tls_session *session, void *bytes, size_t count);
ssize_t strata_tls_send(strata_tls_session *session, const struct iovec *list, int count);
// Tells the peer that no more will be sent. Never waits.
void strata_tls_goodbye(strata_tls_session *session);
#endif
