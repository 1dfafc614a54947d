
/*
 * hooks.c - where nginx tells what it is about: see profile.h.
 */


#include <profile/profile.h>
#include <profile/frames.h>
#include <profile/scene.h>


static void ngx_hakmem_checkers(ngx_http_core_main_conf_t *cmcf);
static const char *ngx_hakmem_phase(ngx_http_core_main_conf_t *cmcf,
    ngx_uint_t i, ngx_uint_t n);
static void ngx_hakmem_loggers(ngx_http_core_main_conf_t *cmcf);
static ngx_int_t ngx_hakmem_checker(ngx_http_request_t *r,
    ngx_http_phase_handler_t *ph);
static ngx_int_t ngx_hakmem_log(ngx_http_request_t *r);
static ngx_int_t ngx_hakmem_log_nothing(ngx_http_request_t *r);
static ngx_int_t ngx_hakmem_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_hakmem_header_output(ngx_http_request_t *r);
static ngx_int_t ngx_hakmem_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_hakmem_body_output(ngx_http_request_t *r,
    ngx_chain_t *in);
static void ngx_hakmem_event_process(ngx_event_t *ev);
static ngx_connection_t *ngx_hakmem_event_connection(ngx_event_t *ev);


static ngx_uint_t                        ngx_hakmem_on;


/* what we stand in for; by an entry of the phase engine, in as much room */

typedef union {
    ngx_http_phase_handler_t             ph;
    struct {
        ngx_http_phase_handler_pt        checker;
        const char                      *name;
    } real;
} ngx_hakmem_entry_t;

static ngx_http_phase_handler_t         *ngx_hakmem_engine;
static ngx_hakmem_entry_t               *ngx_hakmem_entries;

static ngx_http_handler_pt              *ngx_hakmem_logger;
static ngx_http_handler_pt              *ngx_hakmem_real_logger;
static ngx_uint_t                        ngx_hakmem_nloggers;

static ngx_http_output_header_filter_pt  ngx_hakmem_next_header;
static ngx_http_output_body_filter_pt    ngx_hakmem_next_body;


/* ---- beginning and end --------------------------------------------------- */

void
ngx_hakmem_scenes_begin(ngx_cycle_t *cycle, ngx_uint_t requests)
{
    ngx_uint_t                  n;
    ngx_http_core_main_conf_t  *cmcf;

    ngx_hakmem_scenes_end();

    for (n = 0; cycle->modules[n]; n++) { /* void */ }

    ngx_hakmem_scene_begin(requests);
    hak_ngx_frames_begin(ngx_hakmem_scene_tell,
                         (const void *const *) cycle->modules, n);

    ngx_hakmem_on = 1;

    cmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_core_module);
    if (cmcf == NULL) {
        return;
    }

    ngx_hakmem_checkers(cmcf);
    ngx_hakmem_loggers(cmcf);

    /* a new configuration has made its chain of filters anew */

    ngx_hakmem_next_header = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_hakmem_header_filter;

    ngx_hakmem_next_body = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_hakmem_body_filter;
}


/*
 * A call of ours may be under way, which goes on with what we know; so none of
 * it is forgotten, and the tables are never freed (by libc's free they must not
 * be: they may be blocks of ours).
 */

void
ngx_hakmem_scenes_end(void)
{
    ngx_uint_t  i;

    ngx_hakmem_on = 0;

    for (i = 0; ngx_hakmem_engine && ngx_hakmem_engine[i].checker; i++) {
        ngx_hakmem_engine[i].checker = ngx_hakmem_entries[i].real.checker;
    }

    ngx_hakmem_engine = NULL;

    for (i = 0; ngx_hakmem_logger && i < ngx_hakmem_nloggers; i++) {
        ngx_hakmem_logger[i] = ngx_hakmem_real_logger[i];
    }

    ngx_hakmem_logger = NULL;

    if (ngx_http_top_header_filter == ngx_hakmem_header_filter) {
        ngx_http_top_header_filter = ngx_hakmem_next_header;
    }

    if (ngx_http_top_body_filter == ngx_hakmem_body_filter) {
        ngx_http_top_body_filter = ngx_hakmem_next_body;
    }
}


static void
ngx_hakmem_checkers(ngx_http_core_main_conf_t *cmcf)
{
    ngx_uint_t                 i, n;
    ngx_hakmem_entry_t        *entries;
    ngx_http_phase_handler_t  *ph;

    static ngx_uint_t          room;

    ph = cmcf->phase_engine.handlers;
    if (ph == NULL) {
        return;
    }

    for (n = 0; ph[n].checker; n++) { /* void */ }

    if (n > room) {
        entries = ngx_alloc(n * sizeof(ngx_hakmem_entry_t), ngx_cycle->log);
        if (entries == NULL) {
            return;
        }

        ngx_hakmem_entries = entries;
        room = n;
    }

    for (i = 0; i < n; i++) {
        ngx_hakmem_entries[i].real.checker = ph[i].checker;
        ngx_hakmem_entries[i].real.name = ngx_hakmem_phase(cmcf, i, n);
    }

    for (i = 0; i < n; i++) {
        ph[i].checker = ngx_hakmem_checker;
    }

    ngx_hakmem_engine = ph;
}


/*
 * The phase of an entry, by its checker; the generic one belongs to three, of
 * which post-read comes first, and precontent just before the content's.
 */

static const char *
ngx_hakmem_phase(ngx_http_core_main_conf_t *cmcf, ngx_uint_t i, ngx_uint_t n)
{
    ngx_uint_t                  k, content, precontent;
    ngx_http_phase_handler_pt   checker;

    checker = ngx_hakmem_entries[i].real.checker;

    if (checker == ngx_http_core_rewrite_phase) {

        for (k = 0; k < i; k++) {
            if (ngx_hakmem_entries[k].real.checker
                == ngx_http_core_find_config_phase)
            {
                return "rewrite";
            }
        }

        return "server-rewrite";
    }

    if (checker == ngx_http_core_find_config_phase) {
        return "find-config";
    }

    if (checker == ngx_http_core_post_rewrite_phase) {
        return "post-rewrite";
    }

    if (checker == ngx_http_core_access_phase) {
        return "access";
    }

    if (checker == ngx_http_core_post_access_phase) {
        return "post-access";
    }

    if (checker == ngx_http_core_content_phase) {
        return "content";
    }

    if (i < cmcf->phases[NGX_HTTP_POST_READ_PHASE].handlers.nelts) {
        return "post-read";
    }

    content = n - cmcf->phases[NGX_HTTP_CONTENT_PHASE].handlers.nelts;
    precontent = content
                 - cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers.nelts;

    return i >= precontent && i < content ? "precontent" : "preaccess";
}


/* the handlers have no argument of their own: the first calls them all */

static void
ngx_hakmem_loggers(ngx_http_core_main_conf_t *cmcf)
{
    ngx_uint_t            i, n;
    ngx_http_handler_pt  *h, *real;

    static ngx_uint_t     room;

    h = cmcf->phases[NGX_HTTP_LOG_PHASE].handlers.elts;
    n = cmcf->phases[NGX_HTTP_LOG_PHASE].handlers.nelts;

    if (n > room) {
        real = ngx_alloc(n * sizeof(ngx_http_handler_pt), ngx_cycle->log);
        if (real == NULL) {
            return;
        }

        ngx_hakmem_real_logger = real;
        room = n;
    }

    ngx_hakmem_nloggers = n;

    for (i = 0; i < n; i++) {
        ngx_hakmem_real_logger[i] = h[i];
        h[i] = (i == 0) ? ngx_hakmem_log : ngx_hakmem_log_nothing;
    }

    ngx_hakmem_logger = h;
}


/* ---- where a request is known -------------------------------------------- */

static HAK_NGX_CALLS ngx_int_t
ngx_hakmem_checker(ngx_http_request_t *r, ngx_http_phase_handler_t *ph)
{
    ngx_int_t            rc;
    ngx_uint_t           depth;
    ngx_hakmem_entry_t  *entry;

    /* the entry of the same number; whoever runs has this engine */

    entry = (ngx_hakmem_entry_t *) ((u_char *) ngx_hakmem_entries
                             + ((u_char *) ph - (u_char *) ngx_hakmem_engine));

    depth = ngx_hakmem_scene_enter(r, entry->real.name, NULL);

    rc = entry->real.checker(r, ph);

    ngx_hakmem_scene_leave(depth);

    return rc;
}


static HAK_NGX_CALLS ngx_int_t
ngx_hakmem_log(ngx_http_request_t *r)
{
    ngx_uint_t  i, depth;

    depth = ngx_hakmem_scene_enter(r, "log", NULL);

    for (i = 0; i < ngx_hakmem_nloggers; i++) {
        (void) ngx_hakmem_real_logger[i](r);
    }

    ngx_hakmem_scene_leave(depth);

    return NGX_OK;
}


static ngx_int_t
ngx_hakmem_log_nothing(ngx_http_request_t *r)
{
    return NGX_OK;
}


static ngx_int_t
ngx_hakmem_header_filter(ngx_http_request_t *r)
{
    return ngx_hakmem_scene_covers(r) ? ngx_hakmem_next_header(r)
                                     : ngx_hakmem_header_output(r);
}


static HAK_NGX_CALLS ngx_int_t
ngx_hakmem_header_output(ngx_http_request_t *r)
{
    ngx_int_t   rc;
    ngx_uint_t  depth;

    depth = ngx_hakmem_scene_enter(r, "output", NULL);

    rc = ngx_hakmem_next_header(r);

    ngx_hakmem_scene_leave(depth);

    return rc;
}


static ngx_int_t
ngx_hakmem_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    return ngx_hakmem_scene_covers(r) ? ngx_hakmem_next_body(r, in)
                                     : ngx_hakmem_body_output(r, in);
}


static HAK_NGX_CALLS ngx_int_t
ngx_hakmem_body_output(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_int_t   rc;
    ngx_uint_t  depth;

    depth = ngx_hakmem_scene_enter(r, "output", NULL);

    rc = ngx_hakmem_next_body(r, in);

    ngx_hakmem_scene_leave(depth);

    return rc;
}


/* ---- events -------------------------------------------------------------- */

ngx_int_t
ngx_hakmem_scenes_wait(ngx_hakmem_wait_pt wait, ngx_cycle_t *cycle,
    ngx_msec_t timer, ngx_uint_t flags)
{
    ngx_int_t     rc;
    ngx_event_t  *ev;

    ngx_hakmem_scene_leave(0);

    if (!ngx_hakmem_on || (flags & NGX_POST_EVENTS)) {
        return wait(cycle, timer, flags);
    }

    rc = wait(cycle, timer, flags|NGX_POST_EVENTS);

    ngx_event_process_posted(cycle, &ngx_posted_accept_events);

    while (!ngx_queue_empty(&ngx_posted_events)) {
        ev = ngx_queue_data(ngx_queue_head(&ngx_posted_events), ngx_event_t,
                            queue);

        ngx_delete_posted_event(ev);

        ngx_hakmem_event_process(ev);
    }

    return rc;
}


static HAK_NGX_CALLS void
ngx_hakmem_event_process(ngx_event_t *ev)
{
    ngx_hakmem_scene_leave(0);

    (void) ngx_hakmem_scene_enter(NULL, NULL, ngx_hakmem_event_connection(ev));

    ev->handler(ev);

    ngx_hakmem_scene_leave(0);
}


/* NULL: it is not one of the worker's own */

static ngx_connection_t *
ngx_hakmem_event_connection(ngx_event_t *ev)
{
    uintptr_t  at, reads, writes, size;

    at = (uintptr_t) ev;
    reads = (uintptr_t) ngx_cycle->read_events;
    writes = (uintptr_t) ngx_cycle->write_events;
    size = ngx_cycle->connection_n * sizeof(ngx_event_t);

    if (ngx_cycle->connections == NULL) {
        return NULL;
    }

    if (at - reads < size) {
        return &ngx_cycle->connections[(at - reads) / sizeof(ngx_event_t)];
    }

    if (at - writes < size) {
        return &ngx_cycle->connections[(at - writes) / sizeof(ngx_event_t)];
    }

    return NULL;
}
