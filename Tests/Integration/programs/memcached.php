<?php
// PHP's memcached extension (libmemcached). What this prints and awaits: ../programs.py

[, $address, $protocol, $large] = $argv;
[$host, $port] = explode(':', $address);
$everyByte = implode('', array_map('chr', range(0, 255))) . "\r\nEND\r\n";

function ask(string $what): void
{
    echo "$what\n";
    if (fgets(STDIN) !== "done\n") {
        exit(1);
    }
}

function settle(): void
{
    ask('settle');
}

/** A test: it passes if its function returns true and throws nothing. */
function check(string $name, callable $test): void
{
    global $client;
    try {
        $passed = $test() === true;
        echo $passed ? "ok $name\n" : "not ok $name: {$client->getResultMessage()}\n";
    } catch (Throwable $error) {
        echo "not ok $name: " . get_class($error) . ': ' . json_encode($error->getMessage()) . "\n";
    }
}

function eventually(callable $condition): bool
{
    $deadline = microtime(true) + 8;
    while (!$condition()) {
        if (microtime(true) > $deadline) {
            return false;
        }
        usleep(50000);
    }
    return true;
}

$client = new Memcached();
$client->setOptions([
    Memcached::OPT_BINARY_PROTOCOL => $protocol === 'binary',
    Memcached::OPT_TCP_NODELAY => true,
    Memcached::OPT_POLL_TIMEOUT => 20000,
    Memcached::OPT_RETRY_TIMEOUT => 0,
    Memcached::OPT_SERVER_FAILURE_LIMIT => 100,
    Memcached::OPT_COMPRESSION => false,
]);
$client->addServer($host, (int) $port);
$extended = ['flags' => Memcached::GET_EXTENDED];
echo 'client php-memcached ' . phpversion('memcached') . "\n";

check('text, numbers, arrays, nothing', function () use ($client) {
    $values = ['text' => 'value', 'number' => 42, 'float' => 2.5, 'true' => true, 'array' => ['a' => [1, null, "\u{fc}"]], 'empty' => ''];
    foreach ($values as $key => $value) {
        if (!$client->set($key, $value)) {
            return false;
        }
    }
    settle();
    foreach ($values as $key => $value) {
        if ($client->get($key) !== $value) {
            return false;
        }
    }
    return $client->get('absent') === false && $client->getResultCode() === Memcached::RES_NOTFOUND;
});
check('every byte', function () use ($client, $everyByte) {
    $client->set('bytes', $everyByte);
    settle();
    return $client->get('bytes') === $everyByte;
});
check('a key of 249 bytes', function () use ($client) {
    $client->set(str_repeat('k', 249), 'long');
    settle();
    return $client->get(str_repeat('k', 249)) === 'long';
});
check('a large value', function () use ($client, $everyByte, $large) {
    $value = str_repeat($everyByte, intdiv((int) $large, strlen($everyByte)));
    $client->set('large', $value);
    settle();
    return $client->get('large') === $value;
});
check('a compressed value', function () use ($client, $large) {
    $client->setOption(Memcached::OPT_COMPRESSION, true);
    $value = str_repeat('lake ', intdiv((int) $large, 5));
    $client->set('compressed', $value);
    $client->setOption(Memcached::OPT_COMPRESSION, false);
    settle();
    return $client->get('compressed') === $value;
});
check('many at once', function () use ($client) {
    $many = [];
    for ($i = 0; $i < 200; $i++) {
        $many["many$i"] = "value $i";
    }
    $stored = $client->setMulti($many, 1000);
    settle();
    return $stored && $client->getMulti([...array_keys($many), 'absent'], Memcached::GET_PRESERVE_ORDER) === $many + ['absent' => null];
});
check('delayed get', function () use ($client) {
    settle();
    $client->getDelayed(['many1', 'absent', 'many2'], true);
    $found = array_column($client->fetchAll(), 'value', 'key');
    return $found === ['many1' => 'value 1', 'many2' => 'value 2'];
});
check('deletion of many', function () use ($client) {
    settle();
    $codes = $client->deleteMulti(['many198', 'many199', 'absent']);
    return $codes['many198'] === true && $codes['absent'] === Memcached::RES_NOTFOUND && $client->get('many199') === false;
});
check('add and replace', function () use ($client) {
    settle();
    if ($client->add('text', 'x') || !in_array($client->getResultCode(), [Memcached::RES_NOTSTORED, Memcached::RES_DATA_EXISTS])) {
        return false;
    }
    return $client->add('added', 'x') && $client->replace('added', 'y') && !$client->replace('absent', 'y') && $client->get('added') === 'y';
});
check('append and prepend', function () use ($client) {
    $client->set('joined', 'b');
    settle();
    $done = $client->append('joined', 'c') && $client->prepend('joined', 'a');
    settle();
    return $done && $client->get('joined') === 'abc' && !$client->append('absent', 'x');
});
check('cas', function () use ($client, $extended) {
    $read = $client->get('text', null, $extended['flags']);
    settle();
    $first = $client->cas($read['cas'], 'text', 'new');
    $second = $client->cas($read['cas'], 'text', 'newer');
    $why = $client->getResultCode();
    settle();
    return $read['value'] === 'value' && $first && !$second && $why === Memcached::RES_DATA_EXISTS && $client->get('text') === 'new';
});
check('many with their CAS', function () use ($client, $extended) {
    $found = $client->getMulti(['many1', 'many2'], $extended['flags']);
    return count($found) === 2 && $found['many1']['value'] === 'value 1' && $found['many1']['cas'] !== $found['many2']['cas'];
});
check('counters', function () use ($client) {
    $client->set('counter', 10);
    settle();
    $steps = [$client->increment('counter', 5), $client->decrement('counter', 3), $client->decrement('counter', 100)];
    settle();
    return $steps === [15, 12, 0] && $client->increment('absent') === false;
});
if ($protocol === 'binary') {
    check('a counter with its first value', function () use ($client) {
        $first = $client->increment('born', 5, 7, 1000);
        settle();
        return $first === 7 && $client->increment('born', 5, 7, 1000) === 12;
    });
}
check('delete', function () use ($client) {
    settle();
    return $client->delete('number') && !$client->delete('number') && $client->get('number') === false;
});
check('read through', function () use ($client) {
    $computed = 0;
    $compute = function ($client, $key, &$value, &$expiration) use (&$computed) {
        $computed++;
        $value = 'result';
        $expiration = 1000;
        return true;
    };
    $first = $client->get('fetched', $compute);
    settle();
    return $first === 'result' && $client->get('fetched', $compute) === 'result' && $computed === 1;
});
check('TTL and touch', function () use ($client) {
    $client->set('short', 'x', 1);
    $client->set('absolute', 'x', time() + 2);
    $client->set('touched', 'x');
    $client->set('kept', 'x', 20);
    settle();
    $done = $client->touch('touched', 1) && $client->touch('kept', 1000) && !$client->touch('absent', 1);
    settle();
    return $done && eventually(fn () => $client->getMulti(['short', 'touched', 'absolute']) === []) && $client->get('kept') === 'x';
});
check('statistics and version', function () use ($client) {
    $statistics = array_values($client->getStats())[0];
    return $statistics['cmd_get'] > 10 && str_starts_with(array_values($client->getVersion())[0], '1.');
});
check('all is there again after a restart', function () use ($client, $everyByte) {
    ask('restart');
    $keys = array_map(fn ($i) => "many$i", range(0, 197));
    $found = [];
    $back = eventually(function () use ($client, $keys, &$found) {
        $found = $client->getMulti($keys) ?: [];
        return count($found) === 198;
    });
    foreach ($found as $key => $value) {
        $back = $back && $value === 'value ' . substr($key, 4);
    }
    return $back && $client->get('text') === 'new' && $client->get('bytes') === $everyByte;
});
check('it is written to after a restart', function () use ($client) {
    $client->set('text', 'after');
    settle();
    return $client->get('text') === 'after';
});
check('flush', function () use ($client) {
    return $client->flush() && $client->get('text') === false && $client->get('array') === false;
});
echo "end\n";
