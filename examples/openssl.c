/*
 * openssl.c - libcrypto and libssl on HAKMEM.
 *
 * CRYPTO_set_mem_functions takes three functions for the whole process and
 * refuses once libcrypto has allocated anything: so it is the first call. Size
 * 0 is requested, and the result must not look like a failure; blocks are
 * allocated in one thread and freed in another.
 */
#include "example.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

static void *give(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return hak_malloc(size);
}

static void *resize(void *p, size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return hak_realloc(p, size);
}

static void take(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    hak_free(p);
}

/* A certificate with some names, signed by itself; NULL: no memory. */
static X509 *make_certificate(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    X509_NAME *name = cert != NULL ? X509_get_subject_name(cert) : NULL;
    int good = name != NULL;

    for (int i = 0; good && i < 10; i++) {
        char text[40];
        int size = snprintf(text, sizeof text, "unit %d of the company", i);

        good = X509_NAME_add_entry_by_txt(name, "OU", MBSTRING_ASC,
                                          (unsigned char *)text, size, -1, 0);
    }
    good = good && X509_set_version(cert, 2) && X509_set_pubkey(cert, key) &&
           X509_gmtime_adj(X509_getm_notBefore(cert), 0) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(cert), 1000) != NULL &&
           X509_set_issuer_name(cert, name) && X509_sign(cert, key, NULL) > 0;
    if (!good) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

/*
 * Writes and reads it `count` times, keeping all copies; returns how many were
 * read.
 */
static int read_back(X509 *cert, X509 **kept, int count)
{
    int done = 0;

    while (done < count) {
        BIO *bio = BIO_new(BIO_s_mem());

        kept[done] = NULL;
        if (bio != NULL && PEM_write_bio_X509(bio, cert)) {
            kept[done] = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        }
        BIO_free(bio);
        if (kept[done] == NULL) {
            break;
        }
        done++;
    }
    return done;
}

int main(int argc, char **argv)
{
    enum mode mode = example_mode(argc, argv);
    enum { COUNT = 1500 };
    static X509 *kept[COUNT];
    EVP_PKEY *key;
    X509 *cert;
    int count;

    if (mode != LIBC) {
        NEED(CRYPTO_set_mem_functions(give, resize, take) == 1);
    }
    key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    NEED(key != NULL);
    cert = make_certificate(key);
    NEED(cert != NULL);
    for (int round = 0; round < (mode == LIMIT ? 2 : 1); round++) {
        if (mode == LIMIT) {
            hak_set_limit(round == 0 ? 4 << 20 : 64 << 20);
        }
        count = read_back(cert, kept, COUNT);
        NEED((count < COUNT) == (mode == LIMIT && round == 0));
        if (mode != LIBC) {
            example_report_process();
        }
        for (int i = 0; i < count; i++) {
            X509_free(kept[i]);
        }
        ERR_clear_error();
    }
    X509_free(cert);
    EVP_PKEY_free(key);
    return 0;
}
