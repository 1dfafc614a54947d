
/*
 * ngx_http_hakmem_sample_plant.c - a leak, a cache that is none, and blocks that
 * keep slabs from being freed; all of it counted, so that a profile can be held
 * against it.  Sizes are those of blocks: nothing is rounded up.
 *
 *     leak      n blocks that nobody frees
 *     cache     n blocks, each in place of the oldest of 2048
 *     fragment  n blocks, of which one in 16 stays, in place of the oldest of
 *               4096
 *     truth     a line of each: its name, bytes and blocks that were allocated,
 *               bytes and blocks that are live, the size of one
 */


#include <ngx_http_hakmem_sample.h>


#define NGX_HTTP_HAKMEM_PLANT_CACHE  2048
#define NGX_HTTP_HAKMEM_PLANT_KEPT   4096
#define NGX_HTTP_HAKMEM_PLANT_RUN    16


typedef struct {
    char         *name;
    size_t        size;
    ngx_uint_t    allocated;
    ngx_uint_t    live;
} ngx_http_hakmem_plant_t;


static ngx_http_hakmem_plant_t  ngx_http_hakmem_leak = { "leak", 512, 0, 0 };
static ngx_http_hakmem_plant_t  ngx_http_hakmem_cache = { "cache", 2048, 0,
                                                          0 };
static ngx_http_hakmem_plant_t  ngx_http_hakmem_fragment = { "fragment", 256,
                                                             0, 0 };

static ngx_http_hakmem_plant_t  *ngx_http_hakmem_plants[] = {
    &ngx_http_hakmem_leak, &ngx_http_hakmem_cache, &ngx_http_hakmem_fragment
};

static void        *ngx_http_hakmem_leaked;    /* each has the one before */
static void        *ngx_http_hakmem_cached[NGX_HTTP_HAKMEM_PLANT_CACHE];
static void        *ngx_http_hakmem_kept[NGX_HTTP_HAKMEM_PLANT_KEPT];
static ngx_uint_t   ngx_http_hakmem_next_cached;
static ngx_uint_t   ngx_http_hakmem_next_kept;


static void *
ngx_http_hakmem_plant(ngx_http_request_t *r, ngx_http_hakmem_plant_t *plant)
{
    void  *p;

    p = ngx_alloc(plant->size, r->connection->log);

    if (p) {
        ngx_memset(p, 'p', plant->size);
        plant->allocated++;
        plant->live++;
    }

    return p;
}


static void
ngx_http_hakmem_pull(ngx_http_hakmem_plant_t *plant, void *p)
{
    if (p) {
        ngx_free(p);
        plant->live--;
    }
}


ngx_int_t
ngx_http_hakmem_sample_leak(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    void        **p;
    ngx_uint_t    n;

    for (n = ngx_http_hakmem_arg(r, "n", 1); n; n--) {
        p = ngx_http_hakmem_plant(r, &ngx_http_hakmem_leak);
        if (p == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        *p = ngx_http_hakmem_leaked;
        ngx_http_hakmem_leaked = p;
    }

    ngx_http_hakmem_say(text, "live %ui\n", ngx_http_hakmem_leak.live);

    return NGX_OK;
}


ngx_int_t
ngx_http_hakmem_sample_cache(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    void        **p;
    ngx_uint_t    n;

    for (n = ngx_http_hakmem_arg(r, "n", 1); n; n--) {
        p = &ngx_http_hakmem_cached[ngx_http_hakmem_next_cached++
                                    % NGX_HTTP_HAKMEM_PLANT_CACHE];

        ngx_http_hakmem_pull(&ngx_http_hakmem_cache, *p);
        *p = ngx_http_hakmem_plant(r, &ngx_http_hakmem_cache);
    }

    ngx_http_hakmem_say(text, "live %ui\n", ngx_http_hakmem_cache.live);

    return NGX_OK;
}


ngx_int_t
ngx_http_hakmem_sample_fragment(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    void        *run[NGX_HTTP_HAKMEM_PLANT_RUN], **p;
    ngx_uint_t   n, i;

    n = ngx_http_hakmem_arg(r, "n", 1) / NGX_HTTP_HAKMEM_PLANT_RUN;

    for ( /* void */ ; n; n--) {

        for (i = 0; i < NGX_HTTP_HAKMEM_PLANT_RUN; i++) {
            run[i] = ngx_http_hakmem_plant(r, &ngx_http_hakmem_fragment);
        }

        for (i = 1; i < NGX_HTTP_HAKMEM_PLANT_RUN; i++) {
            ngx_http_hakmem_pull(&ngx_http_hakmem_fragment, run[i]);
        }

        p = &ngx_http_hakmem_kept[ngx_http_hakmem_next_kept++
                                  % NGX_HTTP_HAKMEM_PLANT_KEPT];

        ngx_http_hakmem_pull(&ngx_http_hakmem_fragment, *p);
        *p = run[0];
    }

    ngx_http_hakmem_say(text, "live %ui\n", ngx_http_hakmem_fragment.live);

    return NGX_OK;
}


ngx_int_t
ngx_http_hakmem_sample_truth(ngx_http_request_t *r,
    ngx_http_hakmem_text_t *text)
{
    ngx_uint_t                i;
    ngx_http_hakmem_plant_t  *plant;

    for (i = 0; i < 3; i++) {
        plant = ngx_http_hakmem_plants[i];

        ngx_http_hakmem_say(text, "%s %ui %ui %ui %ui %uz\n", plant->name,
                            plant->allocated * plant->size, plant->allocated,
                            plant->live * plant->size, plant->live,
                            plant->size);
    }

    return NGX_OK;
}
