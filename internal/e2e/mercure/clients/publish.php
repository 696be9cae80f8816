<?php
// Publishes as symfony/mercure does: a token signed with the secret, and a form. The ID is the answer's body.
[, $url, $secret] = $argv;

function encode(string $text): string
{
    return rtrim(strtr(base64_encode($text), '+/', '-_'), '=');
}

$head = encode(json_encode(['typ' => 'JWT', 'alg' => 'HS256']));
$claims = encode(json_encode(['mercure' => ['publish' => ['*']]]));
$token = "$head.$claims.".encode(hash_hmac('sha256', "$head.$claims", $secret, true));

$form = http_build_query(['topic' => 'https://example.com/books/1', 'data' => json_encode(['status' => 'é'])])
    .'&topic='.urlencode('https://example.com/shelves/2').'&private=on&type=book&retry=1000';
$context = stream_context_create(['http' => [
    'method' => 'POST',
    'header' => "Authorization: Bearer $token\r\nContent-Type: application/x-www-form-urlencoded\r\n",
    'content' => $form,
    'ignore_errors' => true,
]]);
$id = file_get_contents($url, false, $context);
if (!str_contains($http_response_header[0], ' 200 ')) {
    fwrite(STDERR, $http_response_header[0]."\n".$id);
    exit(1);
}
echo $id;
