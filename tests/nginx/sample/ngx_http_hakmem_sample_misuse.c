
/*
 * ngx_http_hakmem_sample_misuse.c - a faulty module: touches memory of
 * ngx_alloc's that it has freed, or beyond what it has asked for.
 */


#include <ngx_http_hakmem_sample.h>


#define NGX_HTTP_HAKMEM_MISUSED  112


/* A pointer of which the compiler knows nothing. */

static volatile u_char *
ngx_http_hakmem_hidden(u_char *block)
{
    u_char *volatile  hidden = block;

    return hidden;
}


ngx_int_t
ngx_http_hakmem_sample_misuse(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    u_char              *block;
    ngx_str_t            kind;
    volatile u_char     *p;

    if (ngx_http_arg(r, (u_char *) "kind", 4, &kind) != NGX_OK) {
        return NGX_HTTP_BAD_REQUEST;
    }

    block = ngx_alloc(NGX_HTTP_HAKMEM_MISUSED, r->connection->log);
    if (block == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    p = ngx_http_hakmem_hidden(block);

    if (kind.data[0] == 'f') {
        ngx_free(block);
        p[8] = 1;

    } else {
        p[NGX_HTTP_HAKMEM_MISUSED] = 1;
        ngx_free(block);
    }

    ngx_http_hakmem_say(text, "unnoticed %ui\n", 1);

    return NGX_OK;
}
