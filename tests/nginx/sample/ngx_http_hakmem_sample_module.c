
/*
 * ngx_http_hakmem_sample_module.c - a module that uses the pools of
 * hakmem_ngx.h, as others might, and ngx_palloc's beside them.
 *
 * `hakmem_sample NAME;` in a location answers with a text of figures, a line
 * "NAME VALUE" each.  Arguments: server=palloc|hakmem|malloc, n=NUMBER.
 *
 *     sets     n variables are set, over and over, in one request
 *     socket   a connection that is upgraded: for each line that the client
 *              sends, a number, so many messages are made, and the oldest
 *              dropped; it answers with a line of figures
 *     idle     n pools with 10 objects each
 *     time     n objects made and freed, nanoseconds each
 *     leave    n objects made and left to the end of the request
 *     check    what hakmem_ngx.h promises
 *     master   a pool that was made in the master
 *     misuse   writes where it may not: kind=free|beyond
 *     leak, cache, fragment, truth
 *              what a profile has to find, see ngx_http_hakmem_sample_plant.c
 */


#include <ngx_http_hakmem_sample.h>


/* What a connection keeps: the last messages. */

#define NGX_HTTP_HAKMEM_MESSAGES  500

typedef struct {
    ngx_http_hakmem_server_t  *server;
    void                      *pool;
    uint64_t                   random;
    ngx_uint_t                 number;    /* being read */
    ngx_uint_t                 next;      /* message to drop */
    void                      *messages[NGX_HTTP_HAKMEM_MESSAGES];
} ngx_http_hakmem_socket_t;


typedef struct {
    ngx_http_hakmem_sample_pt  run;
} ngx_http_hakmem_sample_conf_t;


typedef struct {
    char                      *name;
    ngx_http_hakmem_sample_pt  run;       /* NULL: the socket */
} ngx_http_hakmem_sample_name_t;


static ngx_int_t ngx_http_hakmem_sample_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_hakmem_sample_socket(ngx_http_request_t *r);
static void ngx_http_hakmem_sample_read(ngx_http_request_t *r);
static ngx_int_t ngx_http_hakmem_sample_line(ngx_http_request_t *r,
    ngx_http_hakmem_socket_t *socket);
static void *ngx_http_hakmem_sample_create_conf(ngx_conf_t *cf);
static char *ngx_http_hakmem_sample(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


static ngx_http_hakmem_sample_name_t  ngx_http_hakmem_sample_names[] = {
    { "sets", ngx_http_hakmem_sample_sets },
    { "socket", NULL },
    { "idle", ngx_http_hakmem_sample_idle },
    { "time", ngx_http_hakmem_sample_time },
    { "leave", ngx_http_hakmem_sample_leave },
    { "check", ngx_http_hakmem_sample_check },
    { "master", ngx_http_hakmem_sample_master },
    { "misuse", ngx_http_hakmem_sample_misuse },
    { "leak", ngx_http_hakmem_sample_leak },
    { "cache", ngx_http_hakmem_sample_cache },
    { "fragment", ngx_http_hakmem_sample_fragment },
    { "truth", ngx_http_hakmem_sample_truth },
    { NULL, NULL }
};


static ngx_command_t  ngx_http_hakmem_sample_commands[] = {

    { ngx_string("hakmem_sample"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_hakmem_sample,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_hakmem_sample_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_hakmem_sample_create_conf,    /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_hakmem_sample_module = {
    NGX_MODULE_V1,
    &ngx_http_hakmem_sample_module_ctx,    /* module context */
    ngx_http_hakmem_sample_commands,       /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_hakmem_sample_init,           /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_hakmem_sample_handler(ngx_http_request_t *r)
{
    ngx_int_t                       rc;
    ngx_buf_t                      *b;
    ngx_chain_t                     out;
    ngx_http_hakmem_text_t         *text;
    ngx_http_hakmem_sample_conf_t  *conf;

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    conf = ngx_http_get_module_loc_conf(r, ngx_http_hakmem_sample_module);
    if (conf->run == NULL) {
        return ngx_http_hakmem_sample_socket(r);
    }

    text = ngx_palloc(r->pool, sizeof(ngx_http_hakmem_text_t));
    if (text == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    text->last = text->start;
    text->end = text->start + sizeof(text->start);

    rc = conf->run(r, text);
    if (rc != NGX_OK) {
        return rc;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->pos = text->start;
    b->last = text->last;
    b->memory = 1;
    b->last_buf = 1;

    out.buf = b;
    out.next = NULL;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = text->last - text->start;
    ngx_str_set(&r->headers_out.content_type, "text/plain");

    rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK) {
        return rc;
    }

    return ngx_http_output_filter(r, &out);
}


/* The connection is the client's and ours from here on, as a websocket. */

static ngx_int_t
ngx_http_hakmem_sample_socket(ngx_http_request_t *r)
{
    ngx_http_hakmem_socket_t  *socket;

    static u_char  answer[] = "HTTP/1.1 101 Switching Protocols" CRLF
                              "Upgrade: sample" CRLF
                              "Connection: Upgrade" CRLF CRLF;

    socket = ngx_pcalloc(r->pool, sizeof(ngx_http_hakmem_socket_t));
    if (socket == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    socket->server = ngx_http_hakmem_server(r);
    if (socket->server == NULL) {
        return NGX_HTTP_BAD_REQUEST;
    }

    socket->pool = socket->server->create(r);
    if (socket->pool == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_set_ctx(r, socket, ngx_http_hakmem_sample_module);

    if (r->connection->send(r->connection, answer, sizeof(answer) - 1)
        != (ssize_t) sizeof(answer) - 1)
    {
        return NGX_ERROR;
    }

    r->keepalive = 0;
    r->read_event_handler = ngx_http_hakmem_sample_read;
    r->write_event_handler = ngx_http_request_empty_handler;
    r->main->count++;

    ngx_http_hakmem_sample_read(r);

    return NGX_DONE;
}


static void
ngx_http_hakmem_sample_read(ngx_http_request_t *r)
{
    u_char                    *p, buf[4096];
    ssize_t                    n;
    ngx_connection_t          *c;
    ngx_http_hakmem_socket_t  *socket;

    c = r->connection;
    socket = ngx_http_get_module_ctx(r, ngx_http_hakmem_sample_module);

    for ( ;; ) {
        n = c->recv(c, buf, sizeof(buf));

        if (n == NGX_AGAIN) {
            if (ngx_handle_read_event(c->read, 0) == NGX_OK) {
                return;
            }

            n = NGX_ERROR;
        }

        for (p = buf; n > 0 && p < buf + n; p++) {

            if (*p >= '0' && *p <= '9') {
                socket->number = 10 * socket->number + *p - '0';

            } else if (ngx_http_hakmem_sample_line(r, socket) != NGX_OK) {
                n = NGX_ERROR;
            }
        }

        if (n == 0 || n == NGX_ERROR) {
            ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
            return;
        }
    }
}


/* Makes `number` messages, drops those that are too old, answers. */

static ngx_int_t
ngx_http_hakmem_sample_line(ngx_http_request_t *r,
    ngx_http_hakmem_socket_t *socket)
{
    void      **message;
    u_char      text[100], *last;
    size_t      size;
    ngx_uint_t  i;

    for (i = 0; i < socket->number; i++) {
        size = 20 + ngx_http_hakmem_random(&socket->random) % 300;
        message = &socket->messages[socket->next++ % NGX_HTTP_HAKMEM_MESSAGES];

        if (*message != NULL) {
            socket->server->free(socket->pool, *message);
        }

        *message = socket->server->alloc(socket->pool, size);
        if (*message == NULL) {
            return NGX_ERROR;
        }

        ngx_memset(*message, 'm', size);
    }

    socket->number = 0;

    last = ngx_snprintf(text, sizeof(text), "%uz %uz" CRLF,
                        socket->server->bytes(socket->pool),
                        ngx_http_hakmem_rss());

    return r->connection->send(r->connection, text, last - text)
           == last - text ? NGX_OK : NGX_ERROR;
}


static void *
ngx_http_hakmem_sample_create_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_hakmem_sample_conf_t));
}


static char *
ngx_http_hakmem_sample(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_hakmem_sample_conf_t *sc = conf;

    ngx_str_t                      *value;
    ngx_http_core_loc_conf_t       *clcf;
    ngx_http_hakmem_sample_name_t  *name;

    value = cf->args->elts;

    for (name = ngx_http_hakmem_sample_names; name->name != NULL; name++) {

        if (ngx_strcmp(value[1].data, name->name) == 0) {
            sc->run = name->run;

            clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
            clcf->handler = ngx_http_hakmem_sample_handler;

            return NGX_CONF_OK;
        }
    }

    return "has an unknown name";
}
