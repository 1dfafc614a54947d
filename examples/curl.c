/*
 * curl.c - libcurl's own memory from HAKMEM.
 *
 * curl_global_init_mem, before any other call of curl, takes five functions for
 * the whole process. A TLS library under it allocates by itself (see
 * openssl.c). A transfer's data goes to the program's own callback: here into
 * an explicit heap for each transfer, with a limit; a callback that returns
 * less than it was given ends the transfer with CURLE_WRITE_ERROR.
 */
#include "example.h"

#include <curl/curl.h>
#include <unistd.h>

static char *copy(const char *text)
{
    size_t size = strlen(text) + 1;
    char *p = hak_malloc(size);

    return p != NULL ? memcpy(p, text, size) : NULL;
}

struct page {
    hak_heap *heap; /* NULL: the C library */
    char *text;
    size_t size, room;
};

static size_t on_data(char *data, size_t one, size_t size, void *user)
{
    struct page *page = user;
    size_t need = page->size + size, room = need * 2;
    char *text = page->text;

    (void)one;
    if (need > page->room) {
        text = page->heap == NULL
                   ? realloc(text, room)
                   : hak_heap_realloc_sized(page->heap, text, page->size, room);
        if (text == NULL) {
            return 0;
        }
        page->text = text;
        page->room = room;
    }
    memcpy(text + page->size, data, size);
    page->size += size;
    return size;
}

/* Headers, a parsed URL and a form: what curl allocates for a request. */
static CURLcode transfer(const char *url, struct page *page)
{
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = NULL;
    CURLU *parts = curl_url();
    char *host, *escaped;
    CURLcode code;

    NEED(curl != NULL && parts != NULL);
    for (int i = 0; i < 10; i++) {
        headers = curl_slist_append(headers, "X-Header: some value of it");
    }
    NEED(curl_url_set(parts, CURLUPART_URL,
                      "https://user@example.org:444/a/b?c=d#e",
                      0) == CURLUE_OK);
    NEED(curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK);
    escaped = curl_easy_escape(curl, "a text with spaces & more", 0);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, page);
    code = curl_easy_perform(curl);
    curl_free(host);
    curl_free(escaped);
    curl_url_cleanup(parts);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return code;
}

int main(int argc, char **argv)
{
    enum mode mode = example_mode(argc, argv);
    char path[] = "example-curl-XXXXXX", url[4200] = "file://";
    int file = mkstemp(path);

    NEED(file >= 0 && ftruncate(file, 300000) == 0 && close(file) == 0);
    NEED(realpath(path, url + strlen(url)) != NULL);
    NEED((mode == LIBC ? curl_global_init(CURL_GLOBAL_DEFAULT)
                       : curl_global_init_mem(CURL_GLOBAL_DEFAULT, hak_malloc,
                                              hak_free, hak_realloc, copy,
                                              hak_calloc)) == CURLE_OK);
    for (int i = 0; i < 150; i++) {
        struct page page = {0};

        if (mode != LIBC) {
            page.heap = example_heap("page", mode == LIMIT ? 100000 : 0);
        }
        NEED(transfer(url, &page) ==
             (mode == LIMIT ? CURLE_WRITE_ERROR : CURLE_OK));
        NEED(mode == LIMIT ? page.size < 100000 : page.size == 300000);
        if (i == 149 && page.heap != NULL) {
            example_report(page.heap);
        }
        page.heap != NULL ? hak_heap_delete(page.heap) : free(page.text);
    }
    curl_global_cleanup();
    unlink(path);
    return 0;
}
