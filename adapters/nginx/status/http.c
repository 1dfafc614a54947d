
/*
 * http.c - the status page and the variable of http{}.
 */


#include <status/status.h>
#include <ngx_http.h>
#include <patch/patch.h>
#include <profile/profile.h>


typedef struct {
    ngx_shm_zone_t        *shm_zone;     /* NULL: no location has the page */
} ngx_http_hakmem_main_conf_t;


typedef struct {
    uint64_t               asked;        /* by the process until then */
} ngx_http_hakmem_ctx_t;


static ngx_int_t ngx_http_hakmem_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_hakmem_post_read_handler(ngx_http_request_t *r);
static void ngx_http_hakmem_cleanup(void *data);
static ngx_int_t ngx_http_hakmem_request_bytes_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_hakmem_add_variables(ngx_conf_t *cf);
static ngx_int_t ngx_http_hakmem_init(ngx_conf_t *cf);
static void *ngx_http_hakmem_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_hakmem_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_hakmem_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_hakmem_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_hakmem_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_hakmem_init_process(ngx_cycle_t *cycle);
static void ngx_http_hakmem_start(ngx_cycle_t *cycle);
static void ngx_http_hakmem_exit_process(ngx_cycle_t *cycle);


#define NGX_HTTP_HAKMEM_VALID                                                 \
    "\"text\", \"json\" or \"prometheus\""


static ngx_conf_enum_t  ngx_http_hakmem_formats[] = {
    { ngx_string("text"), NGX_HAKMEM_TEXT },
    { ngx_string("json"), NGX_HAKMEM_JSON },
    { ngx_string("prometheus"), NGX_HAKMEM_PROMETHEUS },
    { ngx_null_string, 0 }
};


/* by ngx_hakmem_format_e */

static ngx_str_t  ngx_http_hakmem_types[] = {
    ngx_string("text/plain"),
    ngx_string("application/json"),
    ngx_string("text/plain; version=0.0.4; charset=utf-8")
};


static ngx_command_t  ngx_http_hakmem_commands[] = {

    { ngx_string("hakmem_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_ANY,
      ngx_http_hakmem_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_hakmem_loc_conf_t, format),
      ngx_http_hakmem_formats },

    { ngx_string("hakmem_profile"),
      NGX_HTTP_LOC_CONF|NGX_CONF_ANY,
      ngx_http_hakmem_profile,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_hakmem_loc_conf_t, profile),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_hakmem_module_ctx = {
    ngx_http_hakmem_add_variables,         /* preconfiguration */
    ngx_http_hakmem_init,                  /* postconfiguration */

    ngx_http_hakmem_create_main_conf,      /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_hakmem_create_loc_conf,       /* create location configuration */
    ngx_http_hakmem_merge_loc_conf         /* merge location configuration */
};


ngx_module_t  ngx_http_hakmem_module = {
    NGX_MODULE_V1,
    &ngx_http_hakmem_module_ctx,           /* module context */
    ngx_http_hakmem_commands,              /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_hakmem_init_module,           /* init module */
    ngx_http_hakmem_init_process,          /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_hakmem_exit_process,          /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_http_variable_t  ngx_http_hakmem_vars[] = {

    { ngx_string("hakmem_request_bytes"), NULL,
      ngx_http_hakmem_request_bytes_variable, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


/* how many configurations this master has started workers with */

static ngx_uint_t  ngx_http_hakmem_generation;

static ngx_uint_t  ngx_http_hakmem_running;


static ngx_int_t
ngx_http_hakmem_handler(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_str_t                    *type;
    ngx_buf_t                    *b;
    ngx_chain_t                   out;
    ngx_hakmem_snapshot_t         ss;
    ngx_http_hakmem_loc_conf_t   *hlcf;
    ngx_http_hakmem_main_conf_t  *hmcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    hlcf = ngx_http_get_module_loc_conf(r, ngx_http_hakmem_module);
    hmcf = ngx_http_get_module_main_conf(r, ngx_http_hakmem_module);

    ngx_hakmem_record_publish();

    ss.file = ngx_hakmem_file_check(&ss.path);

    if (ngx_hakmem_snapshot(&ss, hmcf->shm_zone, r->pool) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b = ngx_hakmem_format(r->pool, &ss, hlcf->format);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    type = &ngx_http_hakmem_types[hlcf->format];

    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = strcspn((char *) type->data, ";");
    r->headers_out.content_type_lowcase = NULL;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = b->last - b->pos;

    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, &out);
}


/*
 * The first time a module sees a request. Its pool exists by now, but is
 * counted as if it did not. The start is kept where an internal redirect does
 * not clear it: with a cleanup handler, which only serves to find it.
 */

static ngx_int_t
ngx_http_hakmem_post_read_handler(ngx_http_request_t *r)
{
    ngx_pool_t             *pool;
    ngx_pool_cleanup_t     *cln;
    ngx_http_hakmem_ctx_t  *ctx;

    if (ngx_hakmem_worker.state != NGX_HAKMEM_MODULE) {
        return NGX_DECLINED;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_hakmem_ctx_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_http_hakmem_cleanup;

    ctx = cln->data;
    ctx->asked = hak_ngx_asked();

    for (pool = r->pool; pool; pool = pool->d.next) {
        ctx->asked -= pool->d.end - (u_char *) pool;
    }

    return NGX_DECLINED;
}


static void
ngx_http_hakmem_cleanup(void *data)
{
    return;
}


static ngx_int_t
ngx_http_hakmem_request_bytes_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                 *p;
    uint64_t                asked;
    ngx_pool_cleanup_t     *cln;
    ngx_http_hakmem_ctx_t  *ctx;

    for (cln = r->main->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_hakmem_cleanup) {
            break;
        }
    }

    if (cln == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    ctx = cln->data;
    asked = hak_ngx_asked() - ctx->asked;

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->len = ngx_sprintf(p, "%uL", asked) - p;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = p;

    return NGX_OK;
}


static ngx_int_t
ngx_http_hakmem_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    /* all modules are loaded, and Lua's VM is made after this */

    ngx_hakmem_lua_begin(ngx_hakmem_get_conf(cf->cycle));

    for (v = ngx_http_hakmem_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* requests are measured only if the configuration names the variable */

static ngx_int_t
ngx_http_hakmem_init(ngx_conf_t *cf)
{
    ngx_str_t                  *name;
    ngx_uint_t                  i;
    ngx_http_handler_pt        *h;
    ngx_http_variable_t        *v;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    name = &ngx_http_hakmem_vars[0].name;
    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (v[i].name.len == name->len
            && ngx_strncmp(v[i].name.data, name->data, name->len) == 0)
        {
            break;
        }
    }

    if (i == cmcf->variables.nelts) {
        return NGX_OK;
    }

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_POST_READ_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_hakmem_post_read_handler;

    return NGX_OK;
}


static void *
ngx_http_hakmem_create_main_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_hakmem_main_conf_t));
}


static void *
ngx_http_hakmem_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_hakmem_loc_conf_t  *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_http_hakmem_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    conf->format = NGX_CONF_UNSET_UINT;
    conf->profile = NGX_CONF_UNSET_UINT;

    return conf;
}


static char *
ngx_http_hakmem_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_hakmem_loc_conf_t  *prev = parent;
    ngx_http_hakmem_loc_conf_t  *conf = child;

    ngx_conf_merge_uint_value(conf->format, prev->format, NGX_HAKMEM_TEXT);
    ngx_conf_merge_uint_value(conf->profile, prev->profile, HAK_PROFILE_PAGE);

    return NGX_CONF_OK;
}


static char *
ngx_http_hakmem_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_hakmem_loc_conf_t *hlcf = conf;

    ngx_str_t                    *value;
    ngx_uint_t                    i;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_hakmem_main_conf_t  *hmcf;

    if (hlcf->format != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (hlcf->profile != NGX_CONF_UNSET_UINT) {
        return "is in a location that \"hakmem_profile\" answers already";
    }

    if (ngx_hakmem_takes(cf, 0, 1, NGX_HTTP_HAKMEM_VALID " or nothing")
        != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;
    i = 0;                               /* text */

    if (cf->args->nelts == 2) {
        while (ngx_http_hakmem_formats[i].name.len
               && ngx_strcmp(ngx_http_hakmem_formats[i].name.data,
                             value[1].data)
                  != 0)
        {
            i++;
        }
    }

    if (ngx_http_hakmem_formats[i].name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\" directive, "
                           "it must be " NGX_HTTP_HAKMEM_VALID,
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    hlcf->format = ngx_http_hakmem_formats[i].value;

    hmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_hakmem_module);

    hmcf->shm_zone = ngx_hakmem_zone_add(cf, &ngx_http_hakmem_module);
    if (hmcf->shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_hakmem_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_hakmem_init_module(ngx_cycle_t *cycle)
{
    ngx_http_hakmem_generation++;

    if (ngx_http_hakmem_running) {

        /* no master: the worker itself reads a new configuration */

        if (!ngx_hakmem_is_loaded(cycle->old_cycle)) {
            ngx_hakmem_record_forget();
        }

        ngx_http_hakmem_start(cycle);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_hakmem_init_process(ngx_cycle_t *cycle)
{
    if (ngx_process == NGX_PROCESS_WORKER || ngx_process == NGX_PROCESS_SINGLE)
    {
        ngx_http_hakmem_running = 1;

        ngx_http_hakmem_start(cycle);
    }

    return NGX_OK;
}


static void
ngx_http_hakmem_start(ngx_cycle_t *cycle)
{
    ngx_http_hakmem_main_conf_t  *hmcf;

    hmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_hakmem_module);

    ngx_hakmem_record_take(hmcf ? hmcf->shm_zone : NULL,
                         ngx_http_hakmem_generation, cycle->log);

    if (hmcf && hmcf->shm_zone) {
        ngx_hakmem_timer_start(cycle);
    }
}


static void
ngx_http_hakmem_exit_process(ngx_cycle_t *cycle)
{
    ngx_hakmem_record_end();
}
