
/*
 * scene.c - what a worker is about when it allocates: see profile.h.
 */


#include <profile/profile.h>
#include <profile/frames.h>
#include <profile/scene.h>


/* requests that are looked through for a connection, and told by number */

#define NGX_HAKMEM_LOOKED     1024
#define NGX_HAKMEM_NUMBERED   4096

#define NGX_HAKMEM_URI_LEN    128


/* a request that was in a phase; kept by a cleanup handler of its pool */

typedef struct {
    ngx_queue_t            queue;
    ngx_http_request_t    *r;
    ngx_uint_t             numbered;     /* unsigned  numbered:1; */
} ngx_hakmem_seen_t;


static ngx_hakmem_seen_t *ngx_hakmem_seen(ngx_http_request_t *r);
static void ngx_hakmem_seen_cleanup(void *data);
static const char *ngx_hakmem_tell_event(ngx_connection_t *c,
    ngx_http_request_t **request);
static void ngx_hakmem_tell_location(struct hak_ngx_scene *scene,
    ngx_http_request_t *r);
static void ngx_hakmem_tell_request(struct hak_ngx_scene *scene,
    ngx_http_request_t *r);
static char *ngx_hakmem_tell_text(char *p, char *last, u_char *text,
    size_t len);


ngx_hakmem_scene_t  ngx_hakmem_scenes[NGX_HAKMEM_SCENES];
ngx_uint_t          ngx_hakmem_depth;

static ngx_queue_t         ngx_hakmem_requests;  /* seen, the last first */

static ngx_uint_t          ngx_hakmem_numbers;   /* requests are numbered */
static ngx_uint_t          ngx_hakmem_numbered;


void
ngx_hakmem_scene_begin(ngx_uint_t requests)
{
    if (ngx_hakmem_requests.next == NULL) {
        ngx_queue_init(&ngx_hakmem_requests);
    }

    ngx_hakmem_numbers = requests;
    ngx_hakmem_numbered = 0;
}


ngx_http_request_t *
ngx_hakmem_scene_request(ngx_http_request_t *r)
{
    return ngx_hakmem_seen(r) ? r : NULL;
}


ngx_uint_t
ngx_hakmem_scene_covers(ngx_http_request_t *r)
{
    ngx_hakmem_scene_t  *scene;

    if (ngx_hakmem_depth == 0 || ngx_hakmem_depth > NGX_HAKMEM_SCENES) {
        return ngx_hakmem_depth != 0;
    }

    scene = &ngx_hakmem_scenes[ngx_hakmem_depth - 1];

    return scene->phase && scene->r && scene->r->main == r->main;
}


/*
 * NULL: there is no memory. The module's context is only a shortcut: internal
 * redirects clear it.
 */

static ngx_hakmem_seen_t *
ngx_hakmem_seen(ngx_http_request_t *r)
{
    ngx_hakmem_seen_t   *seen;
    ngx_pool_cleanup_t  *cln;

    seen = ngx_http_get_module_ctx(r, ngx_http_hakmem_module);

    if (seen || r->pool == NULL) {
        return seen;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_hakmem_seen_cleanup) {
            seen = cln->data;

            if (seen->r == r) {
                ngx_http_set_ctx(r, seen, ngx_http_hakmem_module);
                return seen;
            }
        }
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_hakmem_seen_t));
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_hakmem_seen_cleanup;

    seen = cln->data;
    seen->r = r;
    seen->numbered = 0;

    ngx_queue_insert_head(&ngx_hakmem_requests, &seen->queue);
    ngx_http_set_ctx(r, seen, ngx_http_hakmem_module);

    return seen;
}


static void
ngx_hakmem_seen_cleanup(void *data)
{
    ngx_hakmem_seen_t *seen = data;

    ngx_uint_t  i;

    for (i = 0; i < NGX_HAKMEM_SCENES; i++) {
        if (ngx_hakmem_scenes[i].r == seen->r) {
            ngx_hakmem_scenes[i].r = NULL;
        }
    }

    ngx_queue_remove(&seen->queue);
}


/* ---- when a sample is taken ---------------------------------------------- */

void
ngx_hakmem_scene_tell(struct hak_ngx_scene *scene)
{
    const char          *phase;
    ngx_http_request_t  *r;
    ngx_hakmem_scene_t  *now;

    r = NULL;
    phase = NULL;

    if (ngx_hakmem_depth) {
        now = &ngx_hakmem_scenes[ngx_min(ngx_hakmem_depth, NGX_HAKMEM_SCENES)
                                 - 1];
        r = now->r;
        phase = now->phase ? now->phase : ngx_hakmem_tell_event(now->c, &r);
    }

    scene->count = 1;

    if (phase == NULL) {
        (void) ngx_cpystrn((u_char *) scene->word[0], (u_char *) "event",
                           HAK_NGX_WORD);
        return;
    }

    (void) ngx_snprintf((u_char *) scene->word[0], HAK_NGX_WORD, "phase=%s%Z",
                        phase);

    if (r) {
        ngx_hakmem_tell_location(scene, r);
        ngx_hakmem_tell_request(scene, r);
    }
}


/* the request that an event of the connection is for, if it is known */

static const char *
ngx_hakmem_tell_event(ngx_connection_t *c, ngx_http_request_t **request)
{
    ngx_uint_t           n;
    ngx_queue_t         *q;
    ngx_http_request_t  *r;

    if (c == NULL) {
        return NULL;
    }

    n = 0;

    for (q = ngx_queue_head(&ngx_hakmem_requests);
         q != ngx_queue_sentinel(&ngx_hakmem_requests)
         && n++ < NGX_HAKMEM_LOOKED;
         q = ngx_queue_next(q))
    {
        r = (ngx_queue_data(q, ngx_hakmem_seen_t, queue))->r;

        if (r->upstream && r->upstream->peer.connection == c) {
            *request = r;
            return "upstream";
        }

        if (r->connection == c && r == r->main) {
            *request = r;
            return "client";
        }
    }

    return NULL;
}


/* as the configuration has it; before find-config there is none */

static void
ngx_hakmem_tell_location(struct hak_ngx_scene *scene, ngx_http_request_t *r)
{
    char                      *p, *last;
    const char                *kind;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf == NULL || clcf->name.len == 0) {
        return;
    }

    kind = "";

    if (clcf->exact_match) {
        kind = "= ";

#if (NGX_PCRE)
    } else if (clcf->regex) {
        kind = "~ ";
#endif
    }

    p = scene->word[scene->count++];
    last = p + HAK_NGX_WORD;

    p = (char *) ngx_snprintf((u_char *) p, last - p, "location=%s", kind);
    (void) ngx_hakmem_tell_text(p, last, clcf->name.data, clcf->name.len);
}


/*
 * If the configuration wants it. The connection's number is that of the log's
 * lines, *17. Each is a stack of its own, so there is an end to it.
 */

static void
ngx_hakmem_tell_request(struct hak_ngx_scene *scene, ngx_http_request_t *r)
{
    char               *p, *last;
    ngx_hakmem_seen_t  *seen;

    if (!ngx_hakmem_numbers) {
        return;
    }

    p = scene->word[scene->count++];
    last = p + HAK_NGX_WORD;

    seen = ngx_http_get_module_ctx(r->main, ngx_http_hakmem_module);

    if (seen == NULL
        || (!seen->numbered && ngx_hakmem_numbered >= NGX_HAKMEM_NUMBERED))
    {
        (void) ngx_cpystrn((u_char *) p, (u_char *) "request=other",
                           HAK_NGX_WORD);
        return;
    }

    if (!seen->numbered) {
        seen->numbered = 1;
        ngx_hakmem_numbered++;
    }

    p = (char *) ngx_snprintf((u_char *) p, last - p, "request=*%uA.%ui ",
                              r->connection->number,
                              (ngx_uint_t) r->connection->requests);

    (void) ngx_hakmem_tell_text(p, last, r->main->uri.data,
                                ngx_min(r->main->uri.len, NGX_HAKMEM_URI_LEN));
}


/* other bytes than printable ASCII as %XX */

static char *
ngx_hakmem_tell_text(char *p, char *last, u_char *text, size_t len)
{
    u_char  *end;

    for (end = text + len; text < end && last - p > 3; text++) {

        if (*text < ' ' || *text >= 0x7f) {
            p = (char *) ngx_sprintf((u_char *) p, "%%%02XD",
                                     (uint32_t) *text);

        } else {
            *p++ = *text;
        }
    }

    *p = '\0';

    return p;
}
