// The words of a command line as main gets them, and a help text as a string.
#ifndef TRIVET_TESTS_TRAIN_TEST_OPTIONS_H
#define TRIVET_TESTS_TRAIN_TEST_OPTIONS_H
#include "train/options.h"
#include <cstdlib>
#include <string>
#include <vector>

struct Words {
    std::vector<std::string> words;
    std::vector<char *> argv;

    Words(const char *command, std::vector<std::string> flags) : words(std::move(flags))
    {
        words.insert(words.begin(), command);
        for (std::string &word : words)
            argv.push_back(word.data());
        argv.push_back(nullptr);
    }
    int argc() const
    {
        return (int)words.size();
    }
    Words(const Words &) = delete;
    Words &operator=(const Words &) = delete;
};

inline std::string help_of(const tv_option_table &table)
{
    char *text = nullptr;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    tv_options_help(&table, out);
    std::fclose(out);
    const std::string help(text, bytes);
    std::free(text);
    return help;
}
#endif
