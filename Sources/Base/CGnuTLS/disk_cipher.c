#include "gnutls_library.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECTOR 512
#define BLOCK 16

struct strata_disk_cipher {
    enum strata_cipher_mode mode;
    enum strata_sector_vector vector;
    gnutls_cipher_hd_t data;
    // For ESSIV.
    gnutls_cipher_hd_t vectors;
};

// GnuTLS has no ECB: it is CBC of one block under a vector of zeroes.
static int open_cbc(gnutls_cipher_hd_t *cipher, const void *key, size_t size) {
    static const unsigned char zeroes[BLOCK];
    gnutls_cipher_algorithm_t algorithm = size == 16 ? GNUTLS_CIPHER_AES_128_CBC : size == 24 ? GNUTLS_CIPHER_AES_192_CBC : GNUTLS_CIPHER_AES_256_CBC;
    gnutls_datum_t key_datum = {.data = (unsigned char *)key, .size = size}, vector = {.data = (unsigned char *)zeroes, .size = BLOCK};
    return gnutls.cipher_init(cipher, algorithm, &key_datum, &vector);
}

static int open_xts(gnutls_cipher_hd_t *cipher, const void *key, size_t size) {
    static const unsigned char zeroes[BLOCK];
    gnutls_datum_t key_datum = {.data = (unsigned char *)key, .size = size}, vector = {.data = (unsigned char *)zeroes, .size = BLOCK};
    return gnutls.cipher_init(cipher, size == 32 ? GNUTLS_CIPHER_AES_128_XTS : GNUTLS_CIPHER_AES_256_XTS, &key_datum, &vector);
}

int strata_disk_cipher_new(strata_disk_cipher **result, enum strata_cipher_mode mode, enum strata_sector_vector vector, const void *key,
                           size_t key_size, const void *vector_key, size_t vector_key_size) {
    strata_disk_cipher *made = calloc(1, sizeof *made);
    if (!made) return GNUTLS_E_MEMORY_ERROR;
    made->mode = mode;
    made->vector = vector;
    int error = mode == STRATA_MODE_XTS ? open_xts(&made->data, key, key_size) : open_cbc(&made->data, key, key_size);
    if (error >= 0 && vector == STRATA_VECTOR_ESSIV) {
        error = open_cbc(&made->vectors, vector_key, vector_key_size);
        if (error < 0) gnutls.cipher_deinit(made->data);
    }
    if (error < 0) {
        free(made);
        return error;
    }
    *result = made;
    return 0;
}

void strata_disk_cipher_free(strata_disk_cipher *cipher) {
    gnutls.cipher_deinit(cipher->data);
    if (cipher->vectors) gnutls.cipher_deinit(cipher->vectors);
    free(cipher);
}

static int set_vector(strata_disk_cipher *cipher, uint64_t sector) {
    unsigned char vector[BLOCK] = {0};
    int bytes = cipher->vector == STRATA_VECTOR_PLAIN ? 4 : 8;
    for (int i = 0; i < bytes; i++) vector[i] = (unsigned char)(sector >> (8 * i));
    if (cipher->vector == STRATA_VECTOR_ESSIV) {
        unsigned char zeroes[BLOCK] = {0};
        gnutls.cipher_set_iv(cipher->vectors, zeroes, BLOCK);
        int error = gnutls.cipher_encrypt2(cipher->vectors, vector, BLOCK, vector, BLOCK);
        if (error < 0) return error;
    }
    gnutls.cipher_set_iv(cipher->data, vector, BLOCK);
    return 0;
}

static int encrypt_blocks(strata_disk_cipher *cipher, const unsigned char *source, unsigned char *target, size_t count) {
    for (size_t i = 0; i < count; i += BLOCK) {
        unsigned char zeroes[BLOCK] = {0};
        gnutls.cipher_set_iv(cipher->data, zeroes, BLOCK);
        int error = gnutls.cipher_encrypt2(cipher->data, source + i, BLOCK, target + i, BLOCK);
        if (error < 0) return error;
    }
    return 0;
}

static int decrypt_blocks(strata_disk_cipher *cipher, unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i += BLOCK) {
        unsigned char zeroes[BLOCK] = {0};
        gnutls.cipher_set_iv(cipher->data, zeroes, BLOCK);
        int error = gnutls.cipher_decrypt(cipher->data, bytes + i, BLOCK);
        if (error < 0) return error;
    }
    return 0;
}

int strata_disk_encrypt(strata_disk_cipher *cipher, uint64_t sector, const void *source, void *target, size_t count) {
    if (cipher->mode == STRATA_MODE_ECB) return encrypt_blocks(cipher, source, target, count);
    for (size_t i = 0; i < count; i += SECTOR) {
        int error = set_vector(cipher, sector++);
        if (error >= 0) error = gnutls.cipher_encrypt2(cipher->data, (const char *)source + i, SECTOR, (char *)target + i, SECTOR);
        if (error < 0) return error;
    }
    return 0;
}

int strata_disk_decrypt(strata_disk_cipher *cipher, uint64_t sector, void *bytes, size_t count) {
    if (cipher->mode == STRATA_MODE_ECB) return decrypt_blocks(cipher, bytes, count);
    for (size_t i = 0; i < count; i += SECTOR) {
        int error = set_vector(cipher, sector++);
        if (error >= 0) error = gnutls.cipher_decrypt(cipher->data, (char *)bytes + i, SECTOR);
        if (error < 0) return error;
    }
    return 0;
}

static gnutls_digest_algorithm_t digest(enum strata_hash hash) {
    switch (hash) {
    case STRATA_MD5: return GNUTLS_DIG_MD5;
    case STRATA_SHA1: return GNUTLS_DIG_SHA1;
    case STRATA_SHA224: return GNUTLS_DIG_SHA224;
    case STRATA_SHA256: return GNUTLS_DIG_SHA256;
    case STRATA_SHA384: return GNUTLS_DIG_SHA384;
    case STRATA_SHA512: return GNUTLS_DIG_SHA512;
    case STRATA_RIPEMD160: return GNUTLS_DIG_RMD160;
    }
    return GNUTLS_DIG_UNKNOWN;
}

int strata_hash_bytes(enum strata_hash hash, const void *bytes, size_t count, void *result) {
    return gnutls.hash_fast(digest(hash), bytes, count, result);
}

int strata_pbkdf2(enum strata_hash hash, const void *password, size_t password_size, const void *salt, size_t salt_size, uint32_t iterations,
                  void *key, size_t key_size) {
    gnutls_datum_t password_datum = {.data = (unsigned char *)password, .size = password_size};
    gnutls_datum_t salt_datum = {.data = (unsigned char *)salt, .size = salt_size};
    // A digest and the MAC made of it have one number.
    return gnutls.pbkdf2((gnutls_mac_algorithm_t)digest(hash), &password_datum, &salt_datum, iterations, key, key_size);
}

int64_t strata_pbkdf2_speed(enum strata_hash hash, size_t key_size) {
    unsigned char key[64], salt[32] = {0};
    if (key_size > sizeof key) return GNUTLS_E_INVALID_REQUEST;
    for (uint32_t iterations = 1024;; iterations *= 4) {
        struct timespec start, end;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
        int error = strata_pbkdf2(hash, "password", 8, salt, sizeof salt, iterations, key, key_size);
        if (error < 0) return error;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
        int64_t nanoseconds = (end.tv_sec - start.tv_sec) * 1000000000LL + (end.tv_nsec - start.tv_nsec);
        // Long enough for the clock and for a cold processor.
        if (nanoseconds > 20000000 || iterations >= 1u << 26) return (int64_t)(iterations * 1e9 / (nanoseconds > 0 ? nanoseconds : 1));
    }
}

int strata_random_key(void *bytes, size_t count) { return gnutls.rnd(GNUTLS_RND_KEY, bytes, count); }
