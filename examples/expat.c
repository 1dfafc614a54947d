/*
 * expat.c - an expat parser on an explicit heap each, with a limit.
 *
 * XML_ParserCreate_MM takes three functions and no user pointer, but a parser
 * allocates only inside calls on it: so the thread selects the heap before each
 * call (`with`). Two parsers may take turns in one thread.
 */
#include "example.h"

#include <expat.h>

static _Thread_local hak_heap *current;

static void *give(size_t size)
{
    return hak_heap_malloc(current, size);
}

static void *resize(void *p, size_t size)
{
    return hak_heap_realloc(current, p, size);
}

static void take(void *p)
{
    hak_heap_free(current, p);
}

struct parser {
    hak_heap *heap; /* NULL: the C library */
    XML_Parser xml;
    size_t tags;
};

/* Used in every call of expat on a parser. */
static XML_Parser with(struct parser *parser)
{
    current = parser->heap;
    return parser->xml;
}

static void on_start(void *user, const XML_Char *name, const XML_Char **pairs)
{
    struct parser *parser = user;

    (void)name;
    (void)pairs;
    parser->tags++;
}

static void open_parser(struct parser *parser, size_t limit, int on_hakmem)
{
    static const XML_Memory_Handling_Suite suite = {give, resize, take};

    *parser = (struct parser){0};
    parser->heap = on_hakmem ? example_heap("document", limit) : NULL;
    current = parser->heap;
    parser->xml = XML_ParserCreate_MM(NULL, on_hakmem ? &suite : NULL, NULL);
    NEED(parser->xml != NULL);
    XML_SetUserData(with(parser), parser);
    XML_SetStartElementHandler(with(parser), on_start);
}

static void close_parser(struct parser *parser)
{
    if (parser->heap == NULL) {
        XML_ParserFree(parser->xml);
    } else { /* all at once */
        hak_heap_delete(parser->heap);
    }
}

/* `count` different tags with attributes, each a little longer name. */
static enum XML_Error feed(struct parser *parser, int count)
{
    char text[200];
    int size = snprintf(text, sizeof text, "<all>");

    for (int i = 0; i <= count; i++) {
        if (XML_Parse(with(parser), text, size, 0) != XML_STATUS_OK) {
            return XML_GetErrorCode(with(parser));
        }
        size = snprintf(text, sizeof text,
                        "<tag%d name='value %d' other%d='&lt;%d&gt;'>x</tag%d>",
                        i % 3000, i, i % 700, i, i % 3000);
    }
    NEED(XML_Parse(with(parser), "</all>", 6, 1) == XML_STATUS_OK);
    return XML_ERROR_NONE;
}

int main(int argc, char **argv)
{
    enum mode mode = example_mode(argc, argv);
    struct parser parser;

    for (int i = 0; i < 60; i++) { /* many small documents */
        open_parser(&parser, 0, mode != LIBC);
        NEED(feed(&parser, 50) == XML_ERROR_NONE && parser.tags == 51);
        close_parser(&parser);
    }
    open_parser(&parser, mode == LIMIT ? 256 << 10 : 0, mode != LIBC);
    NEED(feed(&parser, 20000) ==
         (mode == LIMIT ? XML_ERROR_NO_MEMORY : XML_ERROR_NONE));
    if (mode != LIBC) {
        example_report(parser.heap);
    }
    close_parser(&parser);
    return 0;
}
