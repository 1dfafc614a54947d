
/*
 * page.c - `hakmem_profile`: the profile of the worker that answers.
 *
 * The core writes it to a file that is only in memory, which is sent as any
 * file. "seconds" waits with a timer, for one request of a worker at a time:
 * there is one mark that growth is counted from.
 */


#include <status/status.h>
#include <profile/profile.h>
#include <ngx_http.h>

#include <sys/mman.h>


/* a request that waits, in its pool */

typedef struct {
    ngx_connection_t       dumb;         /* what debug logs take for ev->data */
    ngx_event_t            event;
    ngx_http_request_t    *r;
    ngx_hakmem_wish_t      wish;
    ngx_uint_t             began;        /* unsigned  began:1; the sampling */
} ngx_http_hakmem_measure_t;


static ngx_int_t ngx_http_hakmem_profile_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_hakmem_other_worker(ngx_http_request_t *r,
    ngx_hakmem_wish_t *wish);
static ngx_int_t ngx_http_hakmem_measure(ngx_http_request_t *r,
    ngx_hakmem_wish_t *wish);
static void ngx_http_hakmem_measured(ngx_event_t *ev);
static void ngx_http_hakmem_measure_cleanup(void *data);
static void ngx_http_hakmem_measure_end(ngx_http_hakmem_measure_t *m);
static ngx_int_t ngx_http_hakmem_profile_send(ngx_http_request_t *r,
    ngx_hakmem_wish_t *wish);
static ngx_int_t ngx_http_hakmem_profile_file(ngx_http_request_t *r,
    ngx_hakmem_wish_t *wish, ngx_buf_t *b);
static ngx_int_t ngx_http_hakmem_say(ngx_http_request_t *r, ngx_uint_t status,
    const char *fmt, ...);
static ngx_int_t ngx_http_hakmem_send(ngx_http_request_t *r,
    ngx_uint_t status, ngx_str_t *type, ngx_buf_t *b, off_t size);


#define NGX_HTTP_HAKMEM_VALID_FORM  NGX_HAKMEM_WISH_FORMATS " or nothing"


/* by HAK_PROFILE_ form */

static ngx_str_t  ngx_http_hakmem_profile_types[] = {
    ngx_string("text/plain; charset=utf-8"),
    ngx_string("application/octet-stream"),
    ngx_string("text/plain; charset=utf-8"),
    ngx_string("application/json"),
    ngx_string("text/html; charset=utf-8")
};


static ngx_http_hakmem_measure_t  *ngx_http_hakmem_measuring;


char *
ngx_http_hakmem_profile(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_uint_t *format = (ngx_uint_t *) ((char *) conf + cmd->offset);

    ngx_str_t                 *value;
    ngx_conf_enum_t           *known;
    ngx_http_core_loc_conf_t  *clcf;

    if (*format != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (ngx_hakmem_takes(cf, 0, 1, NGX_HTTP_HAKMEM_VALID_FORM)
        != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;
    known = ngx_hakmem_wish_formats;     /* html */

    while (cf->args->nelts == 2 && known->name.len
           && ngx_strcmp(known->name.data, value[1].data) != 0)
    {
        known++;
    }

    if (known->name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\" directive, "
                           "it must be " NGX_HTTP_HAKMEM_VALID_FORM,
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "is in a location that something else answers already";
    }

    *format = known->value;
    clcf->handler = ngx_http_hakmem_profile_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_hakmem_profile_handler(ngx_http_request_t *r)
{
    ngx_int_t                    rc;
    ngx_hakmem_wish_t            wish;
    ngx_http_hakmem_loc_conf_t  *hlcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    hlcf = ngx_http_get_module_loc_conf(r, ngx_http_hakmem_module);

    ngx_memzero(&wish, sizeof(ngx_hakmem_wish_t));
    wish.format = hlcf->profile;

    if (ngx_hakmem_wish_read(&r->args, r->pool, &wish) != NGX_OK) {
        return ngx_http_hakmem_say(r, NGX_HTTP_BAD_REQUEST, "%V", &wish.why);
    }

    if (wish.worker && wish.worker != ngx_pid) {
        return ngx_http_hakmem_other_worker(r, &wish);
    }

    if (!ngx_hakmem_has_core() || ngx_hakmem_profiler() == NULL) {
        return ngx_http_hakmem_say(r, NGX_HTTP_CONFLICT,
                                   "worker %P is not served by HAKMEM",
                                   ngx_pid);
    }

    if (wish.seconds) {
        return ngx_http_hakmem_measure(r, &wish);
    }

    if (ngx_hakmem_sampling_rate() == 0) {
        return ngx_http_hakmem_say(r, NGX_HTTP_CONFLICT,
                                   "worker %P is not sampled: ask with "
                                   "\"seconds\", or configure "
                                   "\"hakmem_profile_rate 512k;\"", ngx_pid);
    }

    return ngx_http_hakmem_profile_send(r, &wish);
}


/*
 * nginx gives a connection to whichever worker takes it first, and what it
 * then asks for on that comes to the same one: so it is closed
 */

static ngx_int_t
ngx_http_hakmem_other_worker(ngx_http_request_t *r, ngx_hakmem_wish_t *wish)
{
    ngx_int_t  i;

    for (i = 0; i < ngx_last_process; i++) {

        if (ngx_processes[i].pid == wish->worker) {
            r->keepalive = 0;

            return ngx_http_hakmem_say(r, NGX_HTTP_CONFLICT,
                                       "worker %P took this request, not %i: "
                                       "ask again, or run \"hakmem profile "
                                       "%i\" as the workers' user",
                                       ngx_pid, wish->worker, wish->worker);
        }
    }

    return ngx_http_hakmem_say(r, NGX_HTTP_NOT_FOUND,
                               "no worker %i, this one is %P",
                               wish->worker, ngx_pid);
}


/* ---- "seconds" ----------------------------------------------------------- */

static ngx_int_t
ngx_http_hakmem_measure(ngx_http_request_t *r, ngx_hakmem_wish_t *wish)
{
    ngx_pool_cleanup_t         *cln;
    ngx_http_hakmem_measure_t  *m;

    if (ngx_http_hakmem_measuring) {
        return ngx_http_hakmem_say(r, NGX_HTTP_CONFLICT,
                                   "worker %P is measuring for another "
                                   "request: ask again when it has its answer",
                                   ngx_pid);
    }

    if (wish->rate && ngx_hakmem_sampling_rate()) {
        return ngx_http_hakmem_say(r, NGX_HTTP_CONFLICT,
                                   "worker %P is sampled already, at one in "
                                   "%uz bytes: ask without \"rate\"",
                                   ngx_pid, ngx_hakmem_sampling_rate());
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_hakmem_measure_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    m = cln->data;
    ngx_memzero(m, sizeof(ngx_http_hakmem_measure_t));

    m->dumb.fd = (ngx_socket_t) -1;
    m->event.handler = ngx_http_hakmem_measured;
    m->event.data = m;
    m->event.log = r->connection->log;
    m->r = r;
    m->wish = *wish;
    m->wish.flags |= HAK_PROFILE_GROWN;

    if (ngx_hakmem_sampling_rate() == 0) {

        if (ngx_hakmem_sampling_set((ngx_cycle_t *) ngx_cycle,
                             wish->rate ? wish->rate : HAK_PROFILE_RATE)
            != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        m->began = 1;
    }

    cln->handler = ngx_http_hakmem_measure_cleanup;
    ngx_http_hakmem_measuring = m;
    ngx_hakmem_profiler()->mark();

    /* as a request that limit_req holds up */

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    if (r->connection->read->ready) {
        ngx_post_event(r->connection->read, &ngx_posted_events);

    } else if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_add_timer(&m->event, m->wish.seconds * 1000);

    r->main->count++;

    return NGX_DONE;
}


static void
ngx_http_hakmem_measured(ngx_event_t *ev)
{
    ngx_int_t                   rc;
    ngx_connection_t           *c;
    ngx_http_request_t         *r;
    ngx_http_hakmem_measure_t  *m;

    m = ev->data;
    r = m->r;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    rc = ngx_http_hakmem_profile_send(r, &m->wish);

    ngx_http_hakmem_measure_end(m);

    ngx_http_finalize_request(r, rc);

    ngx_http_run_posted_requests(c);
}


/* the client may be gone before its time */

static void
ngx_http_hakmem_measure_cleanup(void *data)
{
    ngx_http_hakmem_measure_t *m = data;

    if (m->event.timer_set) {
        ngx_del_timer(&m->event);
    }

    ngx_http_hakmem_measure_end(m);
}


static void
ngx_http_hakmem_measure_end(ngx_http_hakmem_measure_t *m)
{
    if (ngx_http_hakmem_measuring != m) {
        return;
    }

    ngx_http_hakmem_measuring = NULL;

    if (m->began) {
        (void) ngx_hakmem_sampling_set((ngx_cycle_t *) ngx_cycle, 0);
    }
}


/* ---- answers ------------------------------------------------------------- */

static ngx_int_t
ngx_http_hakmem_profile_send(ngx_http_request_t *r, ngx_hakmem_wish_t *wish)
{
    ngx_buf_t  *b;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_hakmem_profile_file(r, wish, b) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_hakmem_send(r, NGX_HTTP_OK,
                                &ngx_http_hakmem_profile_types[wish->format],
                                b, b->file_last);
}


static ngx_int_t
ngx_http_hakmem_profile_file(ngx_http_request_t *r, ngx_hakmem_wish_t *wish,
    ngx_buf_t *b)
{
    ngx_fd_t                  fd;
    ngx_file_info_t           fi;
    ngx_pool_cleanup_t       *cln;
    ngx_pool_cleanup_file_t  *clnf;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pool_cleanup_file_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    b->file = ngx_pcalloc(r->pool, sizeof(ngx_file_t));
    if (b->file == NULL) {
        return NGX_ERROR;
    }

    fd = memfd_create("hakmem profile", MFD_CLOEXEC);

    if (fd == -1) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, ngx_errno,
                      "memfd_create() for a profile failed");
        return NGX_ERROR;
    }

    ngx_str_set(&b->file->name, "hakmem profile");
    b->file->fd = fd;
    b->file->log = r->connection->log;

    cln->handler = ngx_pool_cleanup_file;
    clnf = cln->data;
    clnf->fd = fd;
    clnf->name = b->file->name.data;
    clnf->log = r->pool->log;

    if (ngx_hakmem_profiler()->write_fd(fd, wish->format, wish->flags) != 0
        || ngx_fd_info(fd, &fi) == NGX_FILE_ERROR)
    {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, ngx_errno,
                      "a profile could not be written");
        return NGX_ERROR;
    }

    b->file_last = ngx_file_size(&fi);
    b->in_file = b->file_last ? 1 : 0;

    return NGX_OK;
}


/* one line of text */

static ngx_int_t
ngx_http_hakmem_say(ngx_http_request_t *r, ngx_uint_t status, const char *fmt,
    ...)
{
    u_char     *last;
    va_list     args;
    ngx_buf_t  *b;

    b = ngx_create_temp_buf(r->pool, 512);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    last = ngx_cpymem(b->pos, "hakmem: ", sizeof("hakmem: ") - 1);

    va_start(args, fmt);
    last = ngx_vslprintf(last, b->end - 1, fmt, args);
    va_end(args);

    *last++ = LF;
    b->last = last;

    return ngx_http_hakmem_send(r, status, &ngx_http_hakmem_profile_types[0],
                                b, b->last - b->pos);
}


static ngx_int_t
ngx_http_hakmem_send(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, ngx_buf_t *b, off_t size)
{
    ngx_int_t    rc;
    ngx_chain_t  out;

    r->headers_out.status = status;
    r->headers_out.content_length_n = size;
    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = strcspn((char *) type->data, ";");
    r->headers_out.content_type_lowcase = NULL;

    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;
    b->sync = (size == 0 && !b->last_buf) ? 1 : 0;

    out.buf = b;
    out.next = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, &out);
}
