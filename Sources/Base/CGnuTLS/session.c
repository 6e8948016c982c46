#include "gnutls_library.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int strata_tls_session_new(strata_tls_session **result, strata_tls_credentials *credentials, int is_server, int descriptor, const char *priority,
                           const char *host_name, int wants_certificate) {
    strata_tls_session *made = calloc(1, sizeof *made);
    if (!made) return GNUTLS_E_MEMORY_ERROR;
    int error = gnutls.init(&made->session, (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    if (error < 0) {
        free(made);
        return error;
    }
    error = gnutls.priority_set_direct(made->session, priority, NULL);
    if (error >= 0) {
        switch (credentials->kind) {
        case STRATA_TLS_X509: error = gnutls.credentials_set(made->session, GNUTLS_CRD_CERTIFICATE, credentials->x509); break;
        case STRATA_TLS_PSK:
            error = gnutls.credentials_set(made->session, GNUTLS_CRD_PSK,
                                           is_server ? (void *)credentials->psk_server : (void *)credentials->psk_client);
            break;
        case STRATA_TLS_ANONYMOUS:
            error = gnutls.credentials_set(made->session, GNUTLS_CRD_ANON,
                                           is_server ? (void *)credentials->anonymous_server : (void *)credentials->anonymous_client);
            break;
        }
    }
    if (error >= 0 && host_name) error = gnutls.server_name_set(made->session, GNUTLS_NAME_DNS, host_name, strlen(host_name));
    if (error < 0) {
        strata_tls_session_free(made);
        return error;
    }
    if (is_server && wants_certificate) gnutls.certificate_server_set_request(made->session, GNUTLS_CERT_REQUIRE);
    // Whoever drives the session has a limit of its own.
    gnutls.handshake_set_timeout(made->session, 0);
    gnutls.transport_set_int2(made->session, descriptor, descriptor);
    made->descriptor = descriptor;
    *result = made;
    return 0;
}

void strata_tls_session_free(strata_tls_session *session) {
    gnutls.deinit(session->session);
    free(session->ahead);
    free(session);
}

// Gives GnuTLS what has arrived; asks the socket only when nothing is left of what it gave before.
static ssize_t pull(gnutls_transport_ptr_t pointer, void *bytes, size_t count) {
    strata_tls_session *session = pointer;
    if (session->ahead_start == session->ahead_end) {
        ssize_t received = recv(session->descriptor, session->ahead, AHEAD_SIZE, MSG_DONTWAIT);
        if (received <= 0) return received;
        session->ahead_start = 0;
        session->ahead_end = (size_t)received;
    }
    size_t there = session->ahead_end - session->ahead_start;
    if (count > there) count = there;
    memcpy(bytes, session->ahead + session->ahead_start, count);
    session->ahead_start += count;
    return (ssize_t)count;
}

// From the end of the handshake on; during it nothing may be taken from the socket that the kernel would have to decipher later.
static void read_ahead(strata_tls_session *session) {
    if (session->ahead || (strata_tls_kernel_directions(session) & 1)) return;
    session->ahead = malloc(AHEAD_SIZE);
    if (!session->ahead) return;
    gnutls.transport_set_ptr2(session->session, session, (gnutls_transport_ptr_t)(intptr_t)session->descriptor);
    gnutls.transport_set_pull_function(session->session, pull);
}

int strata_tls_handshake(strata_tls_session *session) {
    while (1) {
        int result = gnutls.handshake(session->session);
        if (result == GNUTLS_E_SUCCESS) {
            read_ahead(session);
            return 0;
        }
        if (result == GNUTLS_E_AGAIN || result == GNUTLS_E_INTERRUPTED) return gnutls.record_get_direction(session->session) ? 2 : 1;
        // Warnings of the peer's are no end.
        if (gnutls.error_is_fatal(result)) return result;
    }
}

int strata_tls_verify(strata_tls_session *session, const char *host_name, char *text, size_t size) {
    unsigned status = 0;
    int result = gnutls.certificate_verify_peers3(session->session, host_name, &status);
    if (result < 0) {
        snprintf(text, size, "%s", gnutls.strerror(result));
        return result;
    }
    if (status == 0) return 0;
    gnutls_datum_t sentence = {0};
    if (gnutls.certificate_verification_status_print(status, gnutls.certificate_type_get(session->session), &sentence, 0) >= 0) {
        snprintf(text, size, "%s", (char *)sentence.data);
        free(sentence.data);
    } else {
        snprintf(text, size, "status 0x%x", status);
    }
    return GNUTLS_E_CERTIFICATE_ERROR;
}

int strata_tls_peer_name(strata_tls_session *session, char *text, size_t size) {
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls.certificate_get_peers(session->session, &count);
    if (!chain || count == 0) return GNUTLS_E_NO_CERTIFICATE_FOUND;
    gnutls_x509_crt_t certificate;
    int result = gnutls.x509_crt_init(&certificate);
    if (result < 0) return result;
    result = gnutls.x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER);
    if (result >= 0) result = gnutls.x509_crt_get_dn(certificate, text, &size);
    gnutls.x509_crt_deinit(certificate);
    return result < 0 ? result : 0;
}

int strata_tls_kernel_directions(strata_tls_session *session) {
    return gnutls_kernel_directions ? gnutls_kernel_directions(session->session) : 0;
}

size_t strata_tls_pending(strata_tls_session *session) {
    return gnutls.record_check_pending(session->session) + session->ahead_end - session->ahead_start;
}

static ssize_t as_errno(ssize_t result) {
    switch (result) {
    case GNUTLS_E_AGAIN:
    case GNUTLS_E_INTERRUPTED: return -EAGAIN;
    case GNUTLS_E_PREMATURE_TERMINATION: return -ECONNRESET;
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PULL_ERROR: return errno && errno != EAGAIN ? -errno : -EPIPE;
    default: return -EPROTO;
    }
}

ssize_t strata_tls_receive(strata_tls_session *session, void *bytes, size_t count) {
    if (count == 0) return 0;
    size_t received = 0;
    // Records are small: fill what there is room for, so that the caller's turn is as long as on a plain socket.
    while (received < count) {
        ssize_t result = gnutls.record_recv(session->session, (char *)bytes + received, count - received);
        if (result > 0) {
            received += (size_t)result;
            continue;
        }
        if (received > 0) break;  // what is wrong will be so again next time
        if (result == 0) return 0;
        // A rehandshake or another warning: nothing that we take part in.
        if (result != GNUTLS_E_AGAIN && result != GNUTLS_E_INTERRUPTED && !gnutls.error_is_fatal((int)result)) continue;
        return as_errno(result);
    }
    return (ssize_t)received;
}

ssize_t strata_tls_send(strata_tls_session *session, const struct iovec *list, int count) {
    size_t sent = 0;
    int index = 0;
    size_t skip = 0;
    while (1) {
        size_t filled = session->unsent;
        if (filled == 0) {
            int at = index;
            size_t from = skip;
            while (at < count && filled < RECORD_SIZE) {
                size_t part = list[at].iov_len - from;
                if (part > RECORD_SIZE - filled) part = RECORD_SIZE - filled;
                memcpy(session->record + filled, (const char *)list[at].iov_base + from, part);
                filled += part;
                from += part;
                if (from == list[at].iov_len) {
                    at++;
                    from = 0;
                }
            }
            if (filled == 0) return (ssize_t)sent;
        }
        ssize_t result = session->unsent ? gnutls.record_send(session->session, NULL, 0) : gnutls.record_send(session->session, session->record, filled);
        if (result < 0) {
            if (result == GNUTLS_E_AGAIN || result == GNUTLS_E_INTERRUPTED) {
                session->unsent = filled;
                return sent > 0 ? (ssize_t)sent : -EAGAIN;
            }
            return sent > 0 ? (ssize_t)sent : as_errno(result);
        }
        session->unsent = 0;
        sent += (size_t)result;
        // Past what has gone.
        size_t gone = (size_t)result;
        while (gone > 0 && index < count) {
            size_t part = list[index].iov_len - skip;
            if (part > gone) part = gone;
            gone -= part;
            skip += part;
            if (skip == list[index].iov_len) {
                index++;
                skip = 0;
            }
        }
    }
}

void strata_tls_goodbye(strata_tls_session *session) { (void)gnutls.bye(session->session, GNUTLS_SHUT_WR); }
