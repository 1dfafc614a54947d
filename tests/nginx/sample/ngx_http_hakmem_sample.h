
/*
 * ngx_http_hakmem_sample.h - what the sample module's files share.
 */


#ifndef _NGX_HTTP_HAKMEM_SAMPLE_H_INCLUDED_
#define _NGX_HTTP_HAKMEM_SAMPLE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include <hakmem_ngx.h>


/* The text of an answer. */

typedef struct {
    u_char      *last;
    u_char      *end;
    u_char       start[16384];
} ngx_http_hakmem_text_t;


/* Who serves: one of these. */

typedef struct {
    ngx_str_t    name;
    void        *(*alloc)(void *pool, size_t size);
    void        *(*resize)(void *pool, void *p, size_t old, size_t size);
    void         (*free)(void *pool, void *p);
    void        *(*create)(ngx_http_request_t *r);
    void         (*destroy)(void *pool);
    size_t       (*bytes)(void *pool);
} ngx_http_hakmem_server_t;


typedef ngx_int_t (*ngx_http_hakmem_sample_pt)(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);


extern ngx_http_hakmem_server_t  ngx_http_hakmem_servers[];


/* NULL: the argument `server` is not one's name. */

ngx_http_hakmem_server_t *ngx_http_hakmem_server(ngx_http_request_t *r);

ngx_uint_t ngx_http_hakmem_arg(ngx_http_request_t *r, char *name,
    ngx_uint_t otherwise);
void ngx_http_hakmem_say(ngx_http_hakmem_text_t *text, const char *fmt, ...);
ngx_uint_t ngx_http_hakmem_random(uint64_t *state);
size_t ngx_http_hakmem_rss(void);

void ngx_http_hakmem_fill(void *p, size_t n, ngx_uint_t seed);
ngx_uint_t ngx_http_hakmem_filled(void *p, size_t n, ngx_uint_t seed);

ngx_int_t ngx_http_hakmem_sample_sets(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_idle(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_time(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_leave(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_check(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_master(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_misuse(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_leak(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_cache(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_fragment(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);
ngx_int_t ngx_http_hakmem_sample_truth(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text);

ngx_int_t ngx_http_hakmem_sample_init(ngx_cycle_t *cycle);


#endif /* _NGX_HTTP_HAKMEM_SAMPLE_H_INCLUDED_ */
