#include "gnutls_library.h"
#include <stdlib.h>
#include <string.h>

int strata_tls_credentials_new(strata_tls_credentials **result, enum strata_tls_kind kind, int is_server) {
    if (strata_tls_unavailable()) return GNUTLS_E_INTERNAL_ERROR;
    strata_tls_credentials *made = calloc(1, sizeof *made);
    if (!made) return GNUTLS_E_MEMORY_ERROR;
    made->kind = kind;
    made->is_server = is_server;
    int error = GNUTLS_E_INVALID_REQUEST;
    switch (kind) {
    case STRATA_TLS_X509: error = gnutls.certificate_allocate_credentials(&made->x509); break;
    case STRATA_TLS_PSK:
        error = is_server ? gnutls.psk_allocate_server_credentials(&made->psk_server) : gnutls.psk_allocate_client_credentials(&made->psk_client);
        break;
    case STRATA_TLS_ANONYMOUS:
        error = is_server ? gnutls.anon_allocate_server_credentials(&made->anonymous_server)
                          : gnutls.anon_allocate_client_credentials(&made->anonymous_client);
        break;
    }
    if (error < 0) {
        free(made);
        return error;
    }
    *result = made;
    return 0;
}

void strata_tls_credentials_free(strata_tls_credentials *credentials) {
    switch (credentials->kind) {
    case STRATA_TLS_X509: gnutls.certificate_free_credentials(credentials->x509); break;
    case STRATA_TLS_PSK:
        if (credentials->is_server) gnutls.psk_free_server_credentials(credentials->psk_server);
        else gnutls.psk_free_client_credentials(credentials->psk_client);
        break;
    case STRATA_TLS_ANONYMOUS:
        if (credentials->is_server) gnutls.anon_free_server_credentials(credentials->anonymous_server);
        else gnutls.anon_free_client_credentials(credentials->anonymous_client);
        break;
    }
    free(credentials);
}

int strata_tls_trust(strata_tls_credentials *credentials, const char *path) {
    return gnutls.certificate_set_x509_trust_file(credentials->x509, path, GNUTLS_X509_FMT_PEM);
}

int strata_tls_revocations(strata_tls_credentials *credentials, const char *path) {
    return gnutls.certificate_set_x509_crl_file(credentials->x509, path, GNUTLS_X509_FMT_PEM);
}

int strata_tls_key_pair(strata_tls_credentials *credentials, const char *certificate, const char *key, const char *password) {
    return gnutls.certificate_set_x509_key_file2(credentials->x509, certificate, key, GNUTLS_X509_FMT_PEM, password, 0);
}

int strata_tls_psk_file(strata_tls_credentials *credentials, const char *path) {
    return gnutls.psk_set_server_credentials_file(credentials->psk_server, path);
}

int strata_tls_psk_key(strata_tls_credentials *credentials, const char *user, const char *key) {
    gnutls_datum_t datum = {.data = (unsigned char *)key, .size = (unsigned)strlen(key)};
    return gnutls.psk_set_client_credentials(credentials->psk_client, user, &datum, GNUTLS_PSK_KEY_HEX);
}
