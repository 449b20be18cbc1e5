/* mesh/topology_xml.c -- a walk through XML with expat, safe for files that nobody vouches for. */
#include "mesh/topology_internal.h"
#include <expat.h>
#include <string.h>

struct state {
    XML_Parser parser;
    const struct tv_text *text;
    const struct tv_xml_walk *walk;
    int depth;
    tv_status_t status;
};

static int line_of(const struct state *state)
{
    return (int)XML_GetCurrentLineNumber(state->parser);
}

static void stop(struct state *state, tv_status_t status)
{
    state->status = status;
    XML_StopParser(state->parser, XML_FALSE);
}

static void on_start(void *data, const char *element, const char **attributes)
{
    struct state *state = data;
    if (state->status != TV_OK)
        return;
    if (++state->depth > TV_TOPO_MAX_DEPTH) {
        stop(state, TV_ERR(TV_BAD_FILE, "%s:%d: <%s>: elements nest more than %d deep",
                           state->text->path, line_of(state), element, TV_TOPO_MAX_DEPTH));
        return;
    }
    const tv_status_t status =
        state->walk->start(state->walk->context, element, attributes, line_of(state));
    if (status != TV_OK)
        stop(state, status);
}

static void on_end(void *data, const char *element)
{
    struct state *state = data;
    if (state->status != TV_OK)
        return;
    state->depth--;
    if (state->walk->end != NULL)
        state->walk->end(state->walk->context, element);
}

/* A few entities that name one another can stand for gigabytes. */
static void on_entity(void *data, const char *name, int is_parameter, const char *value, int length,
                      const char *base, const char *system, const char *public_id,
                      const char *notation)
{
    (void)is_parameter, (void)value, (void)length;
    (void)base, (void)system, (void)public_id, (void)notation;
    struct state *state = data;
    if (state->status == TV_OK)
        stop(state, TV_ERR(TV_BAD_FILE, "%s:%d: declares the entity %s, which is refused",
                           state->text->path, line_of(state), name));
}

tv_status_t tv_xml_read(const struct tv_text *text, const struct tv_xml_walk *walk)
{
    struct state state = {.parser = XML_ParserCreate(NULL), .text = text, .walk = walk};
    if (state.parser == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: a parser", text->path);
    XML_SetUserData(state.parser, &state);
    XML_SetElementHandler(state.parser, on_start, on_end);
    XML_SetEntityDeclHandler(state.parser, on_entity);
    const int is_good = XML_Parse(state.parser, text->data, (int)text->bytes, 1) == XML_STATUS_OK;
    if (!is_good && state.status == TV_OK)
        state.status = TV_ERR(TV_BAD_FILE, "%s:%d: %s", text->path, line_of(&state),
                              XML_ErrorString(XML_GetErrorCode(state.parser)));
    XML_ParserFree(state.parser);
    return state.status;
}

const char *tv_xml_attribute(const char **attributes, const char *name)
{
    for (; *attributes != NULL; attributes += 2) {
        if (strcmp(attributes[0], name) == 0)
            return attributes[1];
    }
    return NULL;
}
