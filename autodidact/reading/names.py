"""Word lists that tell what a capitalised name names: countries, given names, heads, honorifics.

They are short on purpose. A name in none of them is asked for as "whom or what", which is never
wrong; a name put into the wrong list would be.
"""

from __future__ import annotations


def _listed(text: str) -> frozenset[str]:
    """The entries of a list, separated by commas."""
    return frozenset(" ".join(entry.split()) for entry in text.split(","))


COUNTRIES = _listed(
    """
    Afghanistan, Albania, Algeria, Angola, Argentina, Armenia, Australia, Austria,
    Azerbaijan, Bangladesh, Belarus, Belgium, Bolivia, Bosnia, Botswana, Brazil, Britain,
    Bulgaria, Burma, Cambodia, Cameroon, Canada, Chad, Chile, China, Colombia, Congo, Costa
    Rica, Croatia, Cuba, Cyprus, Czechoslovakia, Denmark, East Germany, Ecuador, Egypt,
    England, Estonia, Ethiopia, Fiji, Finland, France, Gabon, Georgia, Germany, Ghana, Great
    Britain, Greece, Guatemala, Guinea, Haiti, Hungary, Iceland, India, Indonesia, Iran,
    Iraq, Ireland, Israel, Italy, Jamaica, Japan, Jordan, Kazakhstan, Kenya, Korea, Kuwait,
    Laos, Latvia, Lebanon, Liberia, Libya, Lithuania, Luxembourg, Madagascar, Malaysia,
    Mali, Malta, Mexico, Mongolia, Morocco, Mozambique, Myanmar, Namibia, Nepal,
    Netherlands, New Zealand, Nicaragua, Niger, Nigeria, North Korea, Northern Ireland,
    Norway, Pakistan, Panama, Paraguay, Persia, Peru, Philippines, Poland, Portugal,
    Prussia, Qatar, Romania, Russia, Rwanda, Saudi Arabia, Scotland, Senegal, Serbia,
    Singapore, Slovakia, Slovenia, Somalia, South Africa, South Korea, Soviet Union, Spain,
    Sri Lanka, Sudan, Sweden, Switzerland, Syria, Taiwan, Tanzania, Thailand, Tunisia,
    Turkey, Uganda, Ukraine, United Kingdom, United States, Uruguay, Uzbekistan, Venezuela,
    Vietnam, Wales, West Germany, Yemen, Yugoslavia, Zambia, Zimbabwe
    """
)
CONTINENTS = _listed("Africa, Asia, Europe, North America, South America, Antarctica")
GIVEN_NAMES = _listed(
    """
    Abraham, Ada, Adam, Agnes, Albert, Alexander, Alfred, Alice, Andrew, Anna, Anne,
    Anthony, Antoine, Arthur, Barbara, Benjamin, Bernard, Bruce, Carl, Catherine, Charles,
    Christopher, Claude, Daniel, David, Denis, Dennis, Dorothy, Douglas, Edgar, Edmund,
    Edward, Eleanor, Elizabeth, Emil, Emily, Emma, Enrico, Eric, Ernest, Eugene, Ferdinand,
    Francis, Franz, Frederick, Friedrich, Galileo, Geoffrey, Georg, George, Gerald,
    Gottfried, Gustav, Hans, Harold, Harry, Heinrich, Helen, Henri, Henry, Herbert, Hermann,
    Howard, Hugh, Isaac, Jack, Jacob, Jacques, James, Jane, Jean, Jeremy, Joan, Johann,
    Johannes, John, Jonathan, Joseph, Juan, Julius, Karl, Katherine, Kenneth, Kevin, Kurt,
    Lawrence, Leonard, Leonhard, Lewis, Louis, Louise, Lucy, Ludwig, Marc, Marcus, Margaret,
    Maria, Marie, Mark, Martin, Mary, Matthew, Maurice, Max, Michael, Michel, Neil,
    Nicholas, Nikola, Oliver, Oscar, Otto, Patrick, Paul, Peter, Philip, Philipp, Pierre,
    Ralph, Raymond, Rebecca, René, Richard, Robert, Robin, Roger, Ronald, Rudolf, Russell,
    Samuel, Sarah, Sigmund, Simon, Stephen, Steven, Stuart, Susan, Theodore, Thomas,
    Timothy, Ulrich, Vincent, Walter, Werner, Wilhelm, William, Wolfgang
    """
)

HONORIFICS = _listed(
    """
    Admiral, Archbishop, Bishop, Captain, Cardinal, Chancellor, Colonel, Dr, Duke,
    Emperor, Empress, Father, Governor, Khan, King, Lady, Lieutenant, Lord, Major,
    Pope, President, Prince, Princess, Professor, Queen, Reverend, Saint, Senator, Sir,
    Sultan
    """
)

HEADS = _listed(
    """
    abbey, academy, act, agency, agreement, airport, amendment, army, assembly, association,
    award, bank, battle, bay, bridge, bureau, canal, castle, cathedral, church, city,
    college, commission, committee, company, conference, congress, constitution, convention,
    corporation, council, county, court, crusade, declaration, department, desert, dynasty,
    edict, empire, expedition, festival, forest, foundation, highway, hospital, hotel,
    institute, island, kingdom, lake, league, library, medal, ministry, mountain, museum,
    navy, ocean, orchestra, palace, park, parliament, party, prize, protocol, province,
    railway, rebellion, republic, revolution, river, road, school, sea, senate, society,
    stadium, station, street, temple, theatre, tower, treaty, trophy, union, university,
    valley, war
    """
)
"""Common nouns that end a name of their own kind: the Vistula River is a river."""

NO_NAMES = _listed(
    """
    A, AD, According, After, Against, All, Also, Although, Among, An, Another, Are, Around,
    Article, As, At, BC, BCE, Based, Because, Before, Between, Both, By, CE, Chapter,
    Christian, Despite, During, Each, Earlier, Early, East, Eastern, Eight, English, Even,
    Every, Few, Figure, Five, Following, For, Four, French, Friday, From, German, Given,
    God, Had, Has, Have, He, Her, Here, His, However, I, If, In, Into, Is, It, Its, Late,
    Later, Like, Many, Modern, Monday, More, Most, Near, New, Nine, No, North, Northern,
    Not, Of, On, Once, One, Only, Other, Over, Part, Recent, Recently, Roman, Saturday,
    Section, Seven, Several, She, Since, Six, Some, South, Southern, Such, Sunday, Ten,
    That, The, Their, Then, There, These, They, This, Those, Though, Three, Through,
    Thursday, Thus, To, Today, Tuesday, Two, Under, Unlike, Until, Upon, Using, Was, We,
    Wednesday, Were, West, Western, When, Where, Which, While, Who, With, Within, You
    """
)
"""Capitalised words that begin sentences, or that are too little of a name to be asked for."""
