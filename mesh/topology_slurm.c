/* mesh/topology_slurm.c -- the network from Slurm's topology.conf: lines of the tree plugin
 * (SwitchName= Switches= Nodes= LinkSpeed=) or of the block plugin (BlockName= Nodes=, BlockSizes=).
 *
 * LinkSpeed is free text that Slurm itself does not use, and BlockSizes are for its choice of nodes:
 * both are passed over. A block counts as a leaf switch. */
#include "mesh/topology_internal.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct line {
    const char *name, *switches, *nodes; /* values; NULL: not given */
    int is_other;                        /* BlockSizes and the like: nothing to do */
};

struct reader {
    struct tv_network *network;
    int line, at;   /* number of the line; the switch that it describes */
    char *has_line; /* [switches] */
};

static tv_status_t parse_word(const struct reader *reader, char *word, struct line *line)
{
    static const char *const passed_over[] = {"LinkSpeed", "BlockSizes", "Topology"};
    char *value = strchr(word, '=');
    if (value == NULL || value[1] == '\0')
        return TV_ERR(TV_BAD_FILE, "%s:%d: \"%s\" is not KEY=VALUE", reader->network->path,
                      reader->line, word);
    *value++ = '\0';
    const char **place = NULL;
    if (strcasecmp(word, "SwitchName") == 0 || strcasecmp(word, "BlockName") == 0)
        place = &line->name;
    else if (strcasecmp(word, "Switches") == 0)
        place = &line->switches;
    else if (strcasecmp(word, "Nodes") == 0)
        place = &line->nodes;
    for (size_t i = 0; i < sizeof(passed_over) / sizeof(passed_over[0]); i++)
        line->is_other |= strcasecmp(word, passed_over[i]) == 0;
    if ((place == NULL && !line->is_other) || (place != NULL && *place != NULL))
        return TV_ERR(TV_BAD_FILE, "%s:%d: %s= is %s", reader->network->path, reader->line, word,
                      place == NULL ? "no key of topology.conf" : "given twice");
    if (place != NULL)
        *place = value;
    return TV_OK;
}

static tv_status_t take_switch(void *context, const char *name)
{
    const struct reader *reader = context;
    int child;
    TV_TRY(tv_network_switch(reader->network, name, reader->line, &child));
    return tv_network_join(reader->network, child, reader->at, reader->line);
}

static tv_status_t take_node(void *context, const char *name)
{
    const struct reader *reader = context;
    return tv_network_add_node(reader->network, name, reader->at, -1, reader->line);
}

static tv_status_t take_line(struct reader *reader, const struct line *line)
{
    struct tv_network *network = reader->network;
    if (line->name == NULL)
        return line->switches == NULL && line->nodes == NULL
                   ? TV_OK
                   : TV_ERR(TV_BAD_FILE, "%s:%d: no SwitchName or BlockName", network->path,
                            reader->line);
    if (line->switches == NULL && line->nodes == NULL)
        return TV_ERR(TV_BAD_FILE, "%s:%d: %s has neither Switches nor Nodes", network->path,
                      reader->line, line->name);
    const int known = network->switch_names.num;
    TV_TRY(tv_network_switch(network, line->name, reader->line, &reader->at));
    if (line->switches != NULL)
        TV_TRY(tv_hostlist_each(line->switches, network->path, reader->line, take_switch, reader));
    if (line->nodes != NULL)
        TV_TRY(tv_hostlist_each(line->nodes, network->path, reader->line, take_node, reader));
    const size_t num = (size_t)network->switch_names.num;
    char *grown = realloc(reader->has_line, num);
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%zu switches", num);
    reader->has_line = grown;
    memset(grown + known, 0, num - (size_t)known);
    if (grown[reader->at])
        return TV_ERR(TV_BAD_FILE, "%s:%d: a second line of %s", network->path, reader->line,
                      line->name);
    grown[reader->at] = 1;
    return TV_OK;
}

/* A logical line: cut at its comment. */
static tv_status_t parse_line(struct reader *reader, char *text)
{
    struct line line = {0};
    char *rest = NULL;
    text[strcspn(text, "#")] = '\0';
    for (char *word = strtok_r(text, " \t\r\n", &rest); word != NULL;
         word = strtok_r(NULL, " \t\r\n", &rest))
        TV_TRY(parse_word(reader, word, &line));
    return take_line(reader, &line);
}

static tv_status_t parse_lines(struct reader *reader, char *copy)
{
    int number = 1;
    for (char *next = copy; next != NULL;) {
        char *line = next;
        reader->line = number;
        for (;;) { /* up to the end of a line that no backslash continues */
            char *end = strchr(next, '\n');
            next = end != NULL ? end + 1 : NULL;
            number++;
            if (end == NULL)
                break;
            if (end > line && end[-1] == '\r')
                end--;
            if (end == line || end[-1] != '\\') {
                *end = '\0';
                break;
            }
            end[-1] = ' ';
            *end = ' ';
            next[-1] = ' ';
        }
        TV_TRY(parse_line(reader, line));
    }
    for (int s = 0; s < reader->network->switch_names.num; s++) {
        if (!reader->has_line[s])
            return TV_ERR(TV_BAD_FILE, "%s: the switch %s has no line of its own",
                          reader->network->path, reader->network->switches[s].name);
    }
    return TV_OK;
}

tv_status_t tv_network_parse_slurm(const struct tv_text *text, struct tv_network *network)
{
    char *copy = strdup(text->data);
    if (copy == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", text->path, text->bytes);
    struct reader reader = {.network = network};
    const tv_status_t status = parse_lines(&reader, copy);
    free(reader.has_line);
    free(copy);
    return status;
}
