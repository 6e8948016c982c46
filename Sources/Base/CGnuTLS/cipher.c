#include "gnutls_library.h"

int strata_aes_decrypt(const void *key, const void *vector, void *bytes, size_t count) {
    if (strata_tls_unavailable()) return GNUTLS_E_INTERNAL_ERROR;
    gnutls_datum_t key_datum = {.data = (unsigned char *)key, .size = 32}, vector_datum = {.data = (unsigned char *)vector, .size = 16};
    gnutls_cipher_hd_t cipher;
    int result = gnutls.cipher_init(&cipher, GNUTLS_CIPHER_AES_256_CBC, &key_datum, &vector_datum);
    if (result < 0) return result;
    result = gnutls.cipher_decrypt(cipher, bytes, count);
    gnutls.cipher_deinit(cipher);
    return result;
}
