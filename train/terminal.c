/* train/terminal.c -- width, colour and broken lines. */
#include "train/terminal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int tv_terminal_columns(int asked, FILE *out)
{
    struct winsize window;
    if (asked > 0)
        return asked;
    if (isatty(fileno(out)) && ioctl(fileno(out), TIOCGWINSZ, &window) == 0 && window.ws_col > 0)
        return window.ws_col;
    return 80;
}

int tv_terminal_is_coloured(FILE *out)
{
    return isatty(fileno(out)) && getenv("NO_COLOR") == NULL;
}

void tv_paragraph_word(struct tv_paragraph *p, const char *before, const char *word, int length,
                       const char *after)
{
    const int columns = (int)strlen(before) + length + (int)strlen(after);
    if (p->column > p->indent && p->column + 1 + columns > p->columns) {
        fprintf(p->out, "\n%*s", p->indent, "");
        p->column = p->indent;
    } else if (p->column > p->indent) {
        fputc(' ', p->out);
        p->column++;
    }
    fprintf(p->out, "%s%.*s%s", before, length, word, after);
    p->column += columns;
}

void tv_paragraph_text(struct tv_paragraph *p, const char *text)
{
    for (const char *word = text; *word != '\0';) {
        const int length = (int)strcspn(word, " ");
        tv_paragraph_word(p, "", word, length, "");
        word += length + (word[length] == ' ');
    }
}

tv_status_t tv_output_check(void)
{
    if (fflush(stdout) != 0)
        return TV_ERR(TV_IO, "standard output cannot be written: %s", strerror(errno));
    return !ferror(stdout) ? TV_OK : TV_ERR(TV_IO, "standard output could not be written");
}
