// Ciphers, hashes and keys for disks. Results below zero are GnuTLS's error numbers. Call `strata_tls_unavailable` before anything else here.
#ifndef STRATA_DISK_CIPHER_H
#define STRATA_DISK_CIPHER_H
#include <stddef.h>
#include <stdint.h>

enum strata_cipher_mode { STRATA_MODE_ECB, STRATA_MODE_CBC, STRATA_MODE_XTS };
enum strata_sector_vector { STRATA_VECTOR_PLAIN, STRATA_VECTOR_PLAIN64, STRATA_VECTOR_ESSIV };
enum strata_hash { STRATA_MD5, STRATA_SHA1, STRATA_SHA224, STRATA_SHA256, STRATA_SHA384, STRATA_SHA512, STRATA_RIPEMD160 };

// AES over sectors of 512 bytes, each with the vector of its number. One thread at a time.
typedef struct strata_disk_cipher strata_disk_cipher;

// `key_size`: 16, 24 or 32 bytes; 32 or 64 for XTS. `vector_key` of 16, 24 or 32 bytes for ESSIV, else NULL.
int strata_disk_cipher_new(strata_disk_cipher **result, enum strata_cipher_mode mode, enum strata_sector_vector vector, const void *key,
                           size_t key_size, const void *vector_key, size_t vector_key_size);
void strata_disk_cipher_free(strata_disk_cipher *cipher);
// `count` is a multiple of 512; `source` and `target` are the same or do not overlap. `sector` is the number of the first one.
int strata_disk_encrypt(strata_disk_cipher *cipher, uint64_t sector, const void *source, void *target, size_t count);
int strata_disk_decrypt(strata_disk_cipher *cipher, uint64_t sector, void *bytes, size_t count);

// `digest` has room for the hash's length.
int strata_hash_bytes(enum strata_hash hash, const void *bytes, size_t count, void *digest);
int strata_pbkdf2(enum strata_hash hash, const void *password, size_t password_size, const void *salt, size_t salt_size, uint32_t iterations,
                  void *key, size_t key_size);
// How many iterations of PBKDF2 for a key of `key_size` bytes take a second of this thread's processor time, roughly.
int64_t strata_pbkdf2_speed(enum strata_hash hash, size_t key_size);
int strata_random_key(void *bytes, size_t count);
#endif
